"""Which small runs to train before a law is fitted to them: their proportions and their budgets of tokens.

The design of CLIMB, for m languages: each language at 3 ratios, the others sharing the rest evenly, at 2 budgets,

    r_i = a,   r_j = (1 - a) / (m - 1)  for j != i        3 x m x 2 runs

and, for its monolingual laws L_i(D) = B_i / D^beta_i + E_i, each language alone at 3 budgets or more.

A cheaper one chooses n of many candidate runs such that, with x_b(run) the derivatives of a run's b-th loss by
the parameters of its law, the parameters of all laws together are told apart best:

    max over runs   sum_b log det sum_run x_b(run) x_b(run)^T                              (D-optimal)

found by exchanging one run at a time for a better one (Fedorov), from several random starts. Two laws are known:

    quadratic   one block: p_i, p_i p_j (i < j), p_i log(D / D0)      Scheffe's mixture polynomial, and the budget
    climb       a block a language: (1 - e^(-eta p_j)), (1 - e^(-eta p_j)) D0 / D  for j != i, and the derivative
                by eta:  2m - 1 parameters each, 2m^2 - m in all

Source: Guo et al. 2025 (arXiv 2509.15556) for the 3 x m x 2 runs and the number of parameters. Which ratios they
use is not visible: ours are those at which a language has 1/4, 2 and 8 times the share of each other one, so that
they mean the same for any m and none is the even mixture, which would be one run m times. The second design is
ours; its block of a language is the donor-saturated form, linearised at one eta for all.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mixstream.errors import MixtureError
from mixstream.mixture.simplex import Float64
from mixstream.streams.index import Int64

Law = Literal["climb", "quadratic"]

ODDS = (0.25, 2.0, 8.0)  # times the share of each other language
ETA = 2.0  # where CLIMB's form is linearised: half of a donor's worth at a share of a third
STARTS = 8
LEAST_BUDGETS = {"mixed": 2, "monolingual": 3}  # b + k/D has two unknowns; B, beta and E are three
ALIKE = 1e-9


@dataclass(frozen=True, eq=False)
class Design:
    """R runs to train.

    Attributes:
        runs: R names, which say source, share and budget.
        proportions: (R, K), each row with sum 1.
        tokens: (R,) budgets.
    """

    runs: tuple[str, ...]
    proportions: Float64
    tokens: Int64

    def __len__(self) -> int:
        return len(self.runs)

    def rows(self, chosen: Sequence[int]) -> Design:
        """Return the runs of these numbers."""
        numbers = list(chosen)
        return Design(tuple(self.runs[i] for i in numbers), self.proportions[numbers], self.tokens[numbers])


def default_ratios(num_sources: int) -> tuple[float, ...]:
    """Return the shares at which a source has 1/4, 2 and 8 times the share of each other one."""
    return tuple(odds / (odds + num_sources - 1) for odds in ODDS)


def climb_design(sources: Sequence[str], budgets: Sequence[int], ratios: Sequence[float] | None = None) -> Design:
    """Return the runs of CLIMB: each source at each ratio, the others sharing the rest evenly, at each budget.

    Args:
        sources: m names, at least 2.
        budgets: tokens; at least 2 different ones, since transfer is b + k / D.
        ratios: shares of the source in turn, each above 0 and below 1; None: `default_ratios`, 3 of them.

    Returns:
        m x len(ratios) x len(budgets) runs, a budget after the other.

    Raises:
        MixtureError: too few sources or budgets, or ratios that make one mixture twice.
    """
    count = len(sources)
    if count < 2:
        raise MixtureError(f"a mixture of {count} source(s) has no ratios; pilots need at least 2")
    told = default_ratios(count) if ratios is None else tuple(ratios)
    _check_budgets(budgets, "mixed")
    _check_ratios(told, count)
    names, shares = [], []
    for i, source in enumerate(sources):
        for ratio in told:
            row = np.full(count, (1 - ratio) / (count - 1))
            row[i] = ratio
            names.append(f"{source}-{ratio:.4f}".rstrip("0"))
            shares.append(row)
    return _at_budgets(names, np.array(shares), budgets)


def monolingual_design(sources: Sequence[str], budgets: Sequence[int]) -> Design:
    """Return runs of each source alone, at each of at least 3 budgets: what L = B / D^beta + E is fitted to.

    Raises:
        MixtureError: too few budgets.
    """
    _check_budgets(budgets, "monolingual")
    return _at_budgets([f"{source}-alone" for source in sources], np.eye(len(sources)), budgets)


def candidates(sources: Sequence[str], budgets: Sequence[int], num: int, seed: int) -> Design:
    """Return runs to choose from: those of CLIMB at many ratios, and random mixtures, at each budget.

    Args:
        sources: m names.
        budgets: tokens, at least 2.
        num: random mixtures (even over the simplex), beside the 9 m of the first kind.
        seed: of them.

    Raises:
        MixtureError: as `climb_design`.
    """
    count = len(sources)
    odds = np.geomspace(1 / 8, 16, 9)  # none is 1, nor any two of them each other's inverse
    star = climb_design(sources, budgets[:2], (odds / (odds + count - 1)).tolist())
    drawn = np.random.default_rng(seed).dirichlet(np.ones(count), num)
    names = [name.rpartition("-")[0] for name in star.runs[: 9 * count]] + [f"mix{i:03}" for i in range(num)]
    return _at_budgets(names, np.concatenate([star.proportions[: 9 * count], drawn]), budgets)


def num_parameters(law: Law, num_sources: int) -> int:
    """Return the parameters of each block of a law: runs that it needs at least."""
    if law == "climb":
        return 2 * num_sources - 1
    return 2 * num_sources + num_sources * (num_sources - 1) // 2


def d_optimal(design: Design, num_runs: int, law: Law = "climb", seed: int = 0) -> tuple[int, ...]:
    """Return the numbers, ascending, of the runs of a design that tell a law's parameters apart best.

    The best of several exchanges from random starts; the same for the same seed. It need not be the best of all.

    Args:
        design: the candidates.
        num_runs: n of them are chosen.
        law: whose parameters.
        seed: of the starts.

    Raises:
        MixtureError: fewer runs than parameters, more than candidates, or none of the choices tells them apart.
    """
    _check_number(design, num_runs, law)
    rows = _derivatives(design, law)
    random = np.random.default_rng(seed)
    starts = [random.choice(len(design), num_runs, replace=False) for _ in range(STARTS)]
    found = [_exchanged(rows, start) for start in starts]
    best = max(found, key=lambda chosen: _log_det(rows, chosen))
    if not np.isfinite(_log_det(rows, best)):
        raise MixtureError(
            f"no choice of {num_runs} of the {len(design)} candidates tells the parameters of {law!r} apart; give "
            f"more budgets, or candidates that differ more"
        )
    return tuple(sorted(best.tolist()))


def log_det(design: Design, chosen: Sequence[int], law: Law = "climb") -> float:
    """Return the sum over blocks of log det of the information that runs have; -inf where they tell too little."""
    return _log_det(_derivatives(design, law), np.array(chosen))


def _at_budgets(names: Sequence[str], shares: Float64, budgets: Sequence[int]) -> Design:
    runs = tuple(f"{name}-{told_tokens(budget)}" for budget in budgets for name in names)
    return Design(runs, np.tile(shares, (len(budgets), 1)), np.repeat(np.array(budgets, dtype=np.int64), len(shares)))


def told_tokens(tokens: int) -> str:
    """Return a number of tokens in short, exactly: 200k, 1500k, 2b, or all its digits."""
    for unit, size in (("b", 10**9), ("m", 10**6), ("k", 1000)):
        if tokens % size == 0:
            return f"{tokens // size}{unit}"
    return str(tokens)


def _check_budgets(budgets: Sequence[int], kind: Literal["mixed", "monolingual"]) -> None:
    least = LEAST_BUDGETS[kind]
    if len(set(budgets)) < max(least, len(budgets)) or min(budgets) < 1:
        raise MixtureError(
            f"budgets of {kind} pilots are {', '.join(f'{own:,}' for own in budgets) or 'none'}; expected at least "
            f"{least} different numbers of tokens, above 0, each once"
        )


def _check_ratios(ratios: Sequence[float], num_sources: int) -> None:
    """Refuse ratios that are none, and those that would make one mixture more than once."""
    wrong = [ratio for ratio in ratios if not 0 < ratio < 1]
    if wrong or not ratios:
        raise MixtureError(f"ratio {wrong[0] if wrong else 'none'}; expected numbers above 0 and below 1")
    for first, second in itertools.combinations(ratios, 2):
        if f"{first:.4f}" == f"{second:.4f}" or (num_sources == 2 and abs(first + second - 1) < ALIKE):
            raise MixtureError(
                f"ratios {first:g} and {second:g} make the same mixtures of {num_sources} sources, to four "
                f"decimals; choose another"
            )
    even = [ratio for ratio in ratios if abs(ratio - 1 / num_sources) < ALIKE]
    if even:
        raise MixtureError(
            f"ratio {even[0]:g} is the even share of {num_sources} sources, so that it makes one mixture "
            f"{num_sources} times; choose another"
        )


def _check_number(design: Design, num_runs: int, law: Law) -> None:
    least = num_parameters(law, design.proportions.shape[1])
    if num_runs < least:
        raise MixtureError(
            f"{num_runs} runs are fewer than the {least} parameters that law {law!r} has of each loss of "
            f"{design.proportions.shape[1]} sources; choose at least {least}, better twice as many"
        )
    if num_runs > len(design):
        raise MixtureError(f"{num_runs} runs cannot be chosen from {len(design)} candidates; ask for fewer")


def _derivatives(design: Design, law: Law) -> Float64:
    """Return x, (B, R, P): of each block, each run and each parameter."""
    shares, count = design.proportions, design.proportions.shape[1]
    tokens = design.tokens.astype(np.float64)
    middle = np.exp(np.log(tokens).mean())
    if law == "quadratic":
        pairs = [shares[:, i] * shares[:, j] for i, j in itertools.combinations(range(count), 2)]
        columns = [*shares.T, *pairs, *(shares * np.log(tokens / middle)[:, None]).T]
        one: Float64 = np.stack(columns, axis=1)[None]
        return one
    given = -np.expm1(-ETA * shares)
    blocks = []
    for i in range(count):
        others = np.delete(given, i, axis=1)
        by_eta = np.delete(shares * np.exp(-ETA * shares), i, axis=1).sum(axis=1)
        blocks.append(np.column_stack([others, others * (middle / tokens)[:, None], by_eta]))
    return np.stack(blocks)


def _log_det(rows: Float64, chosen: Int64) -> float:
    x = rows[:, chosen]
    information = x.swapaxes(1, 2) @ x
    sign, logs = np.linalg.slogdet(information)
    if (sign <= 0).any() or (np.linalg.matrix_rank(x) < rows.shape[2]).any():
        return -np.inf
    return float(logs.sum())


def _exchanged(rows: Float64, start: Int64) -> Int64:
    """Exchange one run at a time for the one that gains most, until none gains.

    With V the inverse of a block's information and d(x, y) = x^T V y, putting `new` in the place of `old` multiplies
    its determinant by (1 + d(new, new)) (1 - d(old, old)) + d(old, new)^2.
    """
    chosen = np.array(start)
    size = rows.shape[2]
    ridge = np.eye(size) * 1e-9 * (rows**2).mean()  # a start may tell too little
    while True:
        x = rows[:, chosen]
        inverse = np.linalg.inv(x.swapaxes(1, 2) @ x + ridge)
        by_all = rows @ inverse
        of_all = (by_all * rows).sum(axis=2)
        across = x @ by_all.swapaxes(1, 2)
        factor = (1 + of_all[:, None, :]) * (1 - of_all[:, chosen, None]) + across**2
        gains = np.log(np.maximum(factor, np.finfo(float).tiny)).sum(axis=0)  # (n, R)
        gains[:, chosen] = -np.inf
        old, new = np.unravel_index(int(np.argmax(gains)), gains.shape)
        if not gains[old, new] > 1e-6:
            return chosen
        before = _log_det(rows, chosen)
        exchanged = chosen.copy()
        exchanged[old] = new
        if np.isfinite(before) and _log_det(rows, exchanged) <= before:
            return chosen  # what rounding promised
        chosen = exchanged
