"""Make the pictures of the documentation: `make docs-pictures`, or `python docs/pictures.py [FOLDER]`.

The tutorial's commands run in FOLDER (build/pictures), with a model a tenth of the demo's, since pictures of its report
do not need more; a folder with streams and runs is taken as it is. Chromium, where there is one, takes the page itself.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).parent.parent
PICTURES = REPOSITORY / "docs" / "pictures"
MODEL = {"hidden_size": 64, "intermediate_size": 176, "num_layers": 2, "num_heads": 4}  # 0.13 M parameters
CHARTS = ("weights-proxy", "shares-proxy", "repeats-base", "heldout-runs")  # those that the tutorial shows
SIZES = {"report": (1280, 1100)}


def main() -> None:
    """Train, draw, photograph."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else REPOSITORY / "build" / "pictures").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    PICTURES.mkdir(exist_ok=True)
    train(folder)
    draw(folder)
    for name, size in SIZES.items():
        photograph(folder / "report.html", PICTURES / f"{name}.png", size)


def train(folder: Path) -> None:
    """Run the tutorial as far as the report needs it; what has ended is not run again."""
    recipe = yaml.safe_load((REPOSITORY / "recipes" / "demo.yaml").read_text())
    for part in ("proxy", "base"):
        recipe[part]["model"] = MODEL
    (folder / "demo.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    if not (folder / "streams").exists():
        corpora = REPOSITORY / "recipes" / "quickstart"
        mixstream(folder, "convert", corpora, "--out", "streams", "--sequence-length", 128, "--holdout", 0.15)
    mixstream(folder, "train", "demo.yaml", "--streams", "streams", "--out", "runs/mine")


def draw(folder: Path) -> None:
    """Write the report, and its charts as pictures."""
    runs = [f"runs/mine/{name}" for name in ("proxy", "base", "uniform")]
    shutil.rmtree(folder / "charts", ignore_errors=True)
    mixstream(folder, "report", *runs, "--out", "report.html", "--images", "charts")
    for name in CHARTS:
        shutil.copyfile(folder / "charts" / f"{name}.svg", PICTURES / f"{name}.svg")


def mixstream(folder: Path, *arguments: object) -> None:
    """Run a command of mixstream in a folder."""
    command = [sys.executable, "-m", "mixstream.cli", *map(str, arguments)]
    subprocess.run(command, cwd=folder, check=True)


def photograph(page: Path, picture: Path, size: tuple[int, int]) -> None:
    """Take a page as a browser of this size shows it."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        print(f"there is no Chromium; {picture.name} stays as it is", file=sys.stderr)
        return
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=15000"]
    target = [f"--window-size={size[0]},{size[1]}", f"--screenshot={picture}", page.as_uri()]
    subprocess.run([browser, *options, *target], check=True, capture_output=True, timeout=180)


if __name__ == "__main__":
    main()
