"""How well laws of 512 small runs rank large ones: RegMix's own runs, for every domain and four regressions.

Isolates the law: all are fitted to the same 512 runs of 1M parameters, and are asked about 64 runs of 1B parameters,
by rank (Spearman: what a 1M run costs tells which 1B run is better), and about 256 other runs of 1M, by relative error.

    python benchmarks/regmix.py FOLDER [--threads 1]

FOLDER has the CSV files of RegMix's repository, train_mixture_1m.csv, train_pile_loss_1m.csv and test_*_1m.csv,
test_*_1B.csv. Shares there are rounded to three digits; rows are divided by their sum. The last line is JSON.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

sys.path.insert(0, str(Path(__file__).parent.parent))
from mixstream.methods.mixing_law import LogLinear, MixingLaw
from mixstream.methods.planning.table import RunTable, table_of
from mixstream.methods.regmix import RegMix
from mixstream.mixture.simplex import Float64

TOKENS = {"1m": 1e9, "1B": 25e9}  # as we recall the paper; no law here uses them
PARAMETERS = {"1m": 1e6, "1B": 1e9}


def read_runs(folder: Path, part: str, size: str) -> RunTable:
    """Return the runs of a part, train or test, and a size, 1m or 1B."""
    sources, proportions = _columns(folder / f"{part}_mixture_{size}.csv")
    targets, losses = _columns(folder / f"{part}_pile_loss_{size}.csv")
    return table_of(
        [name.removeprefix("train_the_pile_") for name in sources],
        proportions / proportions.sum(axis=1, keepdims=True),
        TOKENS[size],
        losses,
        targets=[name.removeprefix("metric/the_pile_").removesuffix("_val_loss") for name in targets],
        parameters=PARAMETERS[size],
    )


def _columns(path: Path) -> tuple[list[str], Float64]:
    """Return the names and values of all columns but the first, the index."""
    with path.open(newline="") as file:
        names, *rows = csv.reader(file)
    return names[1:], np.array([[float(value) for value in row[1:]] for row in rows])


def linear(runs: RunTable, asked: Float64) -> Float64:
    """Return what linear regression of the losses expects of mixtures; with sum 1 the constant is in the shares."""
    return asked @ np.linalg.lstsq(runs.proportions, runs.losses, rcond=None)[0]


def measured(runs: RunTable, others: list[RunTable], threads: int) -> dict[str, tuple[float, list[Float64]]]:
    """Return of each regression the seconds of its fit, and what it expects of each other table."""
    found = {}
    for planner in (MixingLaw(), LogLinear(), RegMix(threads=threads)):
        begun = time.perf_counter()
        fitted = planner.fit(runs)
        seconds = time.perf_counter() - begun
        found[planner.name] = seconds, [fitted.predict(one.proportions, one.tokens) for one in others]
    begun = time.perf_counter()
    expected = [linear(runs, one.proportions) for one in others]
    found["linear"] = time.perf_counter() - begun, expected
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--threads", type=int, default=1, help="of LightGBM")
    asked = parser.parse_args()
    runs, small, large = (
        read_runs(asked.folder, *which) for which in (("train", "1m"), ("test", "1m"), ("test", "1B"))
    )
    found = measured(runs, [small, large], asked.threads)
    ranks: dict[str, dict[str, float]] = {}
    errors: dict[str, dict[str, float]] = {}
    for name, (_, (near, far)) in found.items():
        relative = np.median(np.abs(near / small.losses - 1), axis=0)
        ranks[name] = {
            target: round(float(spearmanr(far[:, number], large.losses[:, number])[0]), 4)
            for number, target in enumerate(runs.targets)
        }
        errors[name] = {target: round(float(relative[number]), 5) for number, target in enumerate(runs.targets)}
    print(f"{len(runs)} runs of 1M are fitted")
    print(f"Spearman over {len(large)} runs of 1B | median error, in %, of {len(small)} other runs of 1M")
    print(f"{'':20}" + "".join(f"{name:>12}" for name in found) + "  |" + "".join(f"{name:>12}" for name in found))
    for target in runs.targets:
        rank = "".join(f"{ranks[name][target]:12.4f}" for name in found)
        print(f"{target:20}{rank}  |" + "".join(f"{100 * errors[name][target]:12.2f}" for name in found))
    rank = "".join(f"{np.mean(list(ranks[name].values())):12.4f}" for name in found)
    print(f"{'mean':20}{rank}  |" + "".join(f"{100 * np.mean(list(errors[name].values())):12.2f}" for name in found))
    print(f"{'fit, seconds':20}" + "".join(f"{seconds:12.2f}" for seconds, _ in found.values()))
    seconds = {name: round(took, 3) for name, (took, _) in found.items()}
    print(json.dumps({"spearman_1B": ranks, "median_error_1m": errors, "fit_seconds": seconds}))


if __name__ == "__main__":
    main()
