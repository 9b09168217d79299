"""CLIMB on planted truth: are losses predicted, the form found, and the best mixture reached, in spite of noise?

Isolates the statistics: no model is trained. A law of each form is drawn at random; pilots are simulated from it,
with 1 % noise on every loss; CLIMB is fitted to them and chooses the form itself. Then:

    error     median of |L_predicted / L_true - 1| over random mixtures at both budgets of the pilots and at 4 times
              the larger one, which no pilot has seen (told apart); a loss that the law cannot tell (nan) is left out
    excess    true loss, summed over languages, of the mixture that the fitted law allocates, over that of the mixture
              that the true law allocates, less 1; at the largest budget of the pilots and at 4 times that
    form      of 10 laws, how often the form that the losses came from is chosen

The design: each of m languages leads at three shares (the others share the rest at random), at two budgets 4 times
apart, 3 x m x 2 mixtures as in CLIMB; and each is trained alone at three budgets.

    python benchmarks/planted_laws.py [--sizes 4,8,16] [--laws 10] [--noise 0.01] [--forms F1,F2,F3] [--strength 1]
                                      [--first-seed 0]
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass

import numpy as np

from mixstream.methods.climb import Climb
from mixstream.methods.climb.allocate import allocate
from mixstream.methods.climb.law import Law
from mixstream.methods.planning.allocating import Region
from mixstream.methods.planning.table import RunTable, table_of

BUDGETS = (1e9, 4e9)
ALONE_BUDGETS = (0.5e9, 2e9, 8e9)
LEADING = (0.15, 0.4, 0.7)
FURTHER = 4 * BUDGETS[-1]
FORMS = ("F1", "F2", "F3")
OBJECTIVES = ("two_step", "sum_loss")


def planted_law(form: str, count: int, seed: int, strength: float = 1.0) -> Law:
    """Return a law of `count` languages: transfers of about strength/count, mostly helping, a third of which fades."""
    random = np.random.default_rng([seed, count])
    beside = 1 - np.eye(count)
    return Law(
        form=form,
        reference_tokens=2e9,
        scale=random.uniform(1.0, 2.0, count),
        exponent=random.uniform(0.25, 0.4, count),
        floor=random.uniform(1.5, 2.2, count),
        saturation=random.uniform(3, 10, count),
        transfer=beside * random.uniform(-0.1, 1.0, (count, count)) * strength / count,
        fading=beside * random.uniform(0, 0.4, (count, count)) * strength / count,
        reference_size=math.nan,
        size_scale=np.zeros(count),
        size_exponent=np.zeros(count),
        sizes=(),
    )


def design(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the proportions (R, K) and tokens (R,) of the pilots."""
    random = np.random.default_rng([seed, count, 1])
    rows, tokens = [], []
    for budget in BUDGETS:
        for leader in range(count):
            for share in LEADING:
                rest = random.dirichlet(np.full(count - 1, 1.5))
                rows.append(np.insert((1 - share) * rest, leader, share))
                tokens.append(budget)
    for budget in ALONE_BUDGETS:
        rows.extend(np.eye(count))
        tokens.extend([budget] * count)
    return np.array(rows), np.array(tokens)


def pilots(law: Law, noise: float, seed: int) -> RunTable:
    """Return a table of simulated pilots; a language that a run does not read has no loss there."""
    count = len(law.floor)
    shares, tokens = design(count, seed)
    random = np.random.default_rng([seed, count, 2])
    losses = law.losses(shares, tokens) * np.exp(noise * random.standard_normal(shares.shape))
    return table_of([f"l{number}" for number in range(count)], shares, tokens, np.where(shares > 0, losses, math.nan))


@dataclass(frozen=True)
class Figures:
    """What was found of one law."""

    form: str
    chosen: str
    seen_error: float
    further_error: float
    excess: dict[str, float]
    fit_seconds: float


def tried(form: str, count: int, noise: float, seed: int, strength: float) -> Figures:
    """Fit the pilots of one law and compare with the truth."""
    truth = planted_law(form, count, seed, strength)
    begun = time.process_time()
    climb = Climb(form="auto", seed=seed).fit(pilots(truth, noise, seed))
    taken = time.process_time() - begun
    shares = np.random.default_rng([seed, count, 3]).dirichlet(np.full(count, 2.0), 200)
    errors = [
        float(np.nanmedian(np.abs(climb.predict(shares, tokens) / truth.losses(shares, np.full(200, tokens)) - 1)))
        for tokens in (*BUDGETS, FURTHER)
    ]
    fitted = climb.fitted
    return Figures(
        form=form,
        chosen=fitted.law.form,
        seen_error=max(errors[:2]),
        further_error=errors[2],
        excess={objective: worst_excess(truth, fitted.law, objective) for objective in OBJECTIVES},
        fit_seconds=taken,
    )


def worst_excess(truth: Law, law: Law, objective: str) -> float:
    """Return how much more the true sum of losses is at the law's mixture than at that of the truth itself."""
    count = len(truth.floor)
    region = Region(least=np.full(count, 1e-3), most=np.ones(count))
    excesses = []
    for tokens in (BUDGETS[-1], FURTHER):
        sums = [
            truth.losses(allocate(one, tokens, region, objective, np.ones(count)).proportions[None], np.array([tokens]))
            for one in (law, truth)
        ]
        excesses.append(float(sums[0].sum() / sums[1].sum() - 1))
    return max(excesses)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="4,8,16")
    parser.add_argument("--laws", type=int, default=10)
    parser.add_argument("--noise", type=float, default=0.01)
    parser.add_argument("--forms", default=",".join(FORMS))
    parser.add_argument("--strength", type=float, default=1.0, help="of transfers, over 1/m")
    parser.add_argument("--first-seed", type=int, default=0, help="of the first law; the others' follow")
    asked = parser.parse_args()
    seeds = range(asked.first_seed, asked.first_seed + asked.laws)
    rows = []
    print(f"{'m':>3} {'form':>4} {'right':>6} {'error':>8} {'at 4x':>8} {'two_step':>9} {'sum_loss':>9} {'fit s':>6}")
    for count in map(int, asked.sizes.split(",")):
        for form in asked.forms.split(","):
            found = [tried(form, count, asked.noise, seed, asked.strength) for seed in seeds]
            row = {
                "m": count,
                "form": form,
                "laws": asked.laws,
                "right_form": sum(one.chosen == one.form for one in found),
                "median_error": max(one.seen_error for one in found),
                "median_error_at_4x": max(one.further_error for one in found),
                **{f"excess_{name}": max(one.excess[name] for one in found) for name in OBJECTIVES},
                "fit_seconds": float(np.median([one.fit_seconds for one in found])),
            }
            rows.append(row)
            print(
                f"{count:>3} {form:>4} {row['right_form']:>3}/{asked.laws:<2} {row['median_error']:>8.3%} "
                f"{row['median_error_at_4x']:>8.3%} {row['excess_two_step']:>9.3%} {row['excess_sum_loss']:>9.3%} "
                f"{row['fit_seconds']:>6.1f}",
                flush=True,
            )
    print("errors and excesses: the worst of the laws")
    asked_for = {"noise": asked.noise, "strength": asked.strength, "first_seed": asked.first_seed}
    print(json.dumps({"benchmark": "planted_laws", **asked_for, "rows": rows}))


if __name__ == "__main__":
    main()
