"""Run every benchmark, one after the other, and put their figures into one table.

    python benchmarks/run_all.py [--quick] [--only read,start] [--docs docs/benchmarks.md]

The table is printed, and with --docs put into that page between its markers; the last line is all of it as JSON. A
benchmark that fails leaves a line that says so, and the others run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from measure import brief, told

HERE = Path(__file__).parent
QUICK = {
    "start": ["--quick"],
    "plan_scale": ["--shards", "100000"],
    "read": ["--seconds", "0.7", "--batches", "8,64"],
    "compressed": ["--samples", "8000"],
    "resume": ["--at", "20000", "--repeats", "3"],
    "weights": ["--seconds", "0.5", "--repeats", "3"],
    "many_streams": ["--seconds", "0.5"],
    "shuffle": [],
    "behaviour": ["--seeds", "2"],
    "exposure_cost": ["--repeats", "1", "--steps", "2", "--count", "1000"],
    "soak": ["--batches", "50000"],
    "update_cost": ["--repeats", "1"],
    "object_store": ["--quick"],
}
PACKAGES = (
    "mixstream-llm",
    "numpy",
    "torch",
    "mosaicml-streaming",
    "litdata",
    "grain",
    "torchdata",
    "zstd",
    "obstore",
    "moto",
)
BEGIN, END = "<!-- measured: run_all.py writes from here -->", "<!-- to here -->"


def run(name: str, options: list[str]) -> dict[str, Any]:
    """Run one benchmark, showing what it prints; return the JSON of its last line."""
    print(f"\n== {name} {' '.join(options)}", flush=True)
    command = [sys.executable, str(HERE / f"{name}.py"), *options]
    last = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or []:
            last = line.strip() or last
            if not line.startswith('{"benchmark"'):
                print(line, end="", flush=True)
    if process.returncode or not last.startswith('{"benchmark"'):
        return {"benchmark": name, "failed": process.returncode, "rows": []}
    found: dict[str, Any] = json.loads(last)
    return found


def machine() -> dict[str, Any]:
    """Return what was measured on, with which versions, and when."""
    cpu = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "name" in line]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "cpu": cpu[0] if cpu else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(memory, 1),
        "system": f"{platform.system()} {platform.release()}",
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def table(results: list[dict[str, Any]], about: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    lines = [
        f"Measured on {about['date']}: {about['cores']} cores of {about['cpu']}, {about['memory_gb']} GB of memory, "
        f"{about['system']}; {versions}.",
        "",
        "| what | figures: median (least-most) | ratios | to reach |",
        "|---|---|---|---|",
    ]
    for result in results:
        if "failed" in result:
            lines.append(f"| {result['benchmark']} | failed with status {result['failed']} | | |")
        for row in result["rows"]:
            figures = "<br>".join(f"{name}: {told(figure)}" for name, figure in row["figures"].items())
            ratios = "<br>".join(f"{name}: {brief(value)}" for name, value in row["ratios"].items())
            notes = "".join(f"<br>{note}" for note in row["notes"])
            lines.append(f"| {row['what']}, {row['unit']} | {figures}{notes} | {ratios} | {row['reach']} |")
    noises = [f"{result['benchmark']} {result['noise']['median']}, {result['noise']['worst']}" for result in results
              if result.get("noise", {}).get("worst", 1) > 1]  # fmt: skip
    lines += ["", "Noise, a fixed piece of work over its fastest (median, worst): " + "; ".join(noises) + "."]
    return "\n".join(lines)


def fill(page: Path, text: str) -> None:
    """Put a text between the markers of a page.

    Raises:
        ValueError: the page has no markers.
    """
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page}: has no lines {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller sizes and shorter measurements")
    parser.add_argument("--only", default=",".join(QUICK), help="benchmarks to run, in this order")
    parser.add_argument("--docs", type=Path, help="the page to update")
    asked = parser.parse_args()
    about = machine()
    results = [run(name, QUICK[name] if asked.quick else []) for name in asked.only.split(",")]
    text = table(results, about)
    print(f"\n{text}\n")
    if asked.docs:
        fill(asked.docs, text)
    print(json.dumps({"machine": about, "results": results}))


if __name__ == "__main__":
    main()
