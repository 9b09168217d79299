"""How long CLIMB takes: a fit of 96 mixtures of 16 languages, and the allocation for 16 and for 100 languages.

Isolates the solvers: laws and pilots are those of planted_laws.py. Medians over repeats, in CPU seconds of one process
(set OMP_NUM_THREADS=1: on a free core that is the time it takes). Budgets are drawn so that a good part of the sources
is held by its cap, which is harder than none.

    python benchmarks/solve_time.py [--repeats 3]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
from planted_laws import FORMS, pilots, planted_law

from mixstream.methods.climb import Climb
from mixstream.methods.climb.allocate import OBJECTIVES, allocate
from mixstream.methods.planning.allocating import region_of

TOKENS = 16e9
REACH = {"fit of 96 mixtures, m=16": 60.0, "solve m=16": 10.0, "solve m=100": 60.0}


def seconds(do: Callable[[], object]) -> float:
    begun = time.process_time()
    do()
    return time.process_time() - begun


def solve_seconds(count: int, form: str, objective: str, seed: int) -> float:
    law = planted_law(form, count, seed)
    random = np.random.default_rng([seed, count, 4])
    sizes = TOKENS / count * random.lognormal(0, 1.5, count)
    region = region_of(TOKENS, sizes, np.full(count, 4.0), 0.01 / count)
    return seconds(lambda: allocate(law, TOKENS, region, objective, np.ones(count), seed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    repeats = range(parser.parse_args().repeats)
    figures: dict[str, list[float]] = {}
    fits = [
        seconds(lambda one=seed: Climb(seed=one).fit(pilots(planted_law("F1", 16, one), 0.01, one))) for seed in repeats
    ]
    figures["fit of 96 mixtures, m=16"] = fits
    for count in (16, 100):
        for form in FORMS:
            for objective in OBJECTIVES:
                figures[f"solve m={count} {form} {objective}"] = [
                    solve_seconds(count, form, objective, seed) for seed in repeats
                ]
    for what, taken in figures.items():
        reach = next(limit for start, limit in REACH.items() if what.startswith(start))
        print(f"{what:<32} {statistics.median(taken):>8.2f} s   (at most {max(taken):.2f}; to reach {reach:g})")
    print(json.dumps({"benchmark": "solve_time", "seconds": figures}))


if __name__ == "__main__":
    main()
