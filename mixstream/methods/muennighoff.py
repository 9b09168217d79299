"""One source, repeated: the data-constrained scaling law, with the constants that were fitted to English.

    L(N, D, U) = E + A / N_eff^alpha + B / D_eff^beta
    D_eff = U + U R*_D (1 - exp(-R_D / R*_D))         R_D = max(D / U - 1, 0)
    N_eff = U_N + U_N R*_N (1 - exp(-R_N / R*_N))     R_N = max(N / U_N - 1, 0)
    U_N   = min(N, N_opt(U)),  N_opt(D) = (D G)^(beta / alpha) G,  G = (alpha A / (beta B))^(1 / (alpha + beta))

U is at most D: data that are not read do not count. Repeats of data, and parameters beyond what U tokens can
use, are worth less by the same saturation: ``D_eff = U S(D / U; R*_D)`` and ``N_eff = U_N S(N / U_N; R*_N)``,
with S of `mixstream.methods.repetition`.

Source: Muennighoff et al. 2023 (arXiv 2305.16264) and their code (huggingface/datablations): the law, its
constants, N_opt. Ours: the compute budget as 6 N D and the search for its best split; and the fit, of all seven
unknowns together, to the logarithms of the losses with Huber's loss.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from mixstream.errors import FitError
from mixstream.methods.mixture_law.law import least_on_log_grid
from mixstream.methods.planning.fitting import Residuals, fit_from
from mixstream.methods.repetition import effective_repeats, worth_of_next
from mixstream.mixture.simplex import Float64

FLOPS_PER_PARAMETER_AND_TOKEN = 6.0
UNKNOWNS = ("E", "A", "B", "alpha", "beta", "R*_D", "R*_N")
NUM_UNKNOWNS = len(UNKNOWNS)
STEP = 1e-5  # of an unknown, to see what it moves
SAME_DIRECTION = 1e-6  # of singular values, relative: below it an unknown is not determined
DELTA = 1e-3  # of Huber's loss, on log losses
LEAST_TOKENS_A_PARAMETER, MOST_TOKENS_A_PARAMETER = 1e-2, 1e6


@dataclass(frozen=True)
class DataConstrainedLaw:
    """The law of one source.

    Attributes:
        floor: E, nats/token.
        log_model_scale, log_data_scale: log A, log B.
        model_exponent, data_exponent: alpha, beta.
        data_saturation, model_saturation: ``R*_D``, ``R*_N``.
    """

    floor: float
    log_model_scale: float
    log_data_scale: float
    model_exponent: float
    data_exponent: float
    data_saturation: float
    model_saturation: float

    def losses(self, parameters: Float64 | float, tokens: Float64 | float, unique: Float64 | float) -> Float64:
        """Return L(N, D, U) in nats/token, of the shape that N, D and U have together.

        Args:
            parameters: N > 0.
            tokens: D > 0, repeats counted.
            unique: U > 0; of more than D, infinite too, D are seen, once.

        Raises:
            FitError: a number that is not above 0, or N or D that is not finite.
        """
        model, data, own = np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in (parameters, tokens, unique)))
        for what, values, most in (
            ("parameters", model, math.inf),
            ("tokens", data, math.inf),
            ("unique", own, math.nan),
        ):
            bad = ~((values > 0) & (values != most))
            if bad.any():
                raise FitError(f"{what}: found {values[bad][0]:g}, expected a finite number above 0")
        known = np.minimum(own, data)
        fresh = np.minimum(model, self.optimal_parameters(known))
        log_data = np.log(known) + np.log(effective_repeats(data / known, self.data_saturation))
        log_model = np.log(fresh) + np.log(effective_repeats(model / fresh, self.model_saturation))
        of_model = np.exp(self.log_model_scale - self.model_exponent * log_model)
        losses: Float64 = self.floor + of_model + np.exp(self.log_data_scale - self.data_exponent * log_data)
        return losses

    def optimal_parameters(self, tokens: Float64 | float) -> Float64:
        """Return N_opt(D): the model that is compute-optimal for D fresh tokens."""
        alpha, beta = self.model_exponent, self.data_exponent
        log_g = (math.log(alpha / beta) + self.log_model_scale - self.log_data_scale) / (alpha + beta)
        return np.asarray(np.exp(beta / alpha * (np.log(tokens) + log_g) + log_g))

    def compute_optimal(self, flops: float, unique: float) -> ComputeOptimal:
        """Return the model and tokens, 6 N D = `flops`, at which the loss is least with U unique tokens.

        Raises:
            FitError: numbers that are not finite and above 0 (U may be infinite).
        """
        if not (flops > 0 and math.isfinite(flops) and unique > 0):
            raise FitError(f"{flops:g} FLOPs and {unique:g} unique tokens; expected numbers above 0, FLOPs finite")
        both = flops / FLOPS_PER_PARAMETER_AND_TOKEN
        ends = tuple(math.sqrt(both * ratio) for ratio in (LEAST_TOKENS_A_PARAMETER, MOST_TOKENS_A_PARAMETER))
        tokens, loss = least_on_log_grid(
            lambda data: self.losses(both / data, data, unique), (ends[0], ends[1]), of="the compute-optimal model"
        )
        return ComputeOptimal(both / tokens, tokens, tokens / unique, loss)

    def worth_of_repeats(self, repeats: Float64) -> RepeatsWorth:
        """Return what `repeats` (n,) of one source are worth, beside as many fresh tokens."""
        effective = effective_repeats(repeats, self.data_saturation)
        return RepeatsWorth(
            repeats=repeats,
            effective=effective,
            share=effective / np.maximum(repeats, np.finfo(float).tiny),
            next_one=worth_of_next(repeats, self.data_saturation),
        )


@dataclass(frozen=True)
class ComputeOptimal:
    """N and D of a compute budget, D / U, and the loss."""

    parameters: float
    tokens: float
    repeats: float
    loss: float


@dataclass(frozen=True, eq=False)
class RepeatsWorth:
    """What repeats are worth.

    Attributes:
        repeats: (n,) r.
        effective: (n,) S(r), in fresh repeats.
        share: (n,) S(r) / r, what a token read is worth on average; 1 where nothing is repeated.
        next_one: (n,) dS/dr, what one more is worth.
    """

    repeats: Float64
    effective: Float64
    share: Float64
    next_one: Float64


# log a, log b, log e, alpha, beta, R*_D, R*_N of the paper's code
PUBLISHED = DataConstrainedLaw(
    floor=math.exp(0.6254804),
    log_model_scale=6.255414,
    log_data_scale=7.3049974,
    model_exponent=0.3526596,
    data_exponent=0.3526596,
    data_saturation=15.387756,
    model_saturation=5.309743,
)


def fit_data_constrained(
    parameters: Float64, tokens: Float64, unique: Float64, losses: Float64, *, start: DataConstrainedLaw = PUBLISHED
) -> DataConstrainedLaw:
    """Return the law that fits runs of one source best.

    Args:
        parameters, tokens, unique: (n,) N, D and U of the runs.
        losses: (n,) nats/token.
        start: a law to start from, beside others.

    Raises:
        FitError: fewer than 7 runs, nothing repeated, losses that are none, unknowns that the runs do not determine,
            or no convergence.
    """
    shapes = [np.shape(values) for values in (parameters, tokens, unique, losses)]
    if len(set(shapes)) > 1 or len(shapes[0]) != 1:
        raise FitError(
            f"parameters, tokens, unique and losses are of shapes {shapes}; expected one number a run of each"
        )
    good = np.isfinite(losses) & (losses > 0)
    if not good.all():
        raise FitError(f"losses {losses[~good][:3].tolist()}; expected finite numbers above 0")
    if len(losses) < NUM_UNKNOWNS:
        raise FitError(
            f"{len(losses)} runs for the {NUM_UNKNOWNS} unknowns of the data-constrained law; "
            f"{NUM_UNKNOWNS - len(losses)} more are needed at least, with other sizes, tokens and repeats"
        )
    if not (tokens > unique).any():
        raise FitError("no run repeats its data (tokens above unique tokens), so R*_D is not determined")

    def residuals(x: Float64) -> Float64:
        return np.asarray(np.log(_law(x).losses(parameters, tokens, unique)) - np.log(losses))

    middle = float(np.median(losses))
    model, data = float(np.median(np.log(parameters))), float(np.median(np.log(tokens)))
    tried = [_numbers(start)]
    for exponent, saturation in itertools.product((0.2, 0.35, 0.5), (3.0, 15.0)):
        scales = [math.log(middle / 4) + exponent * log for log in (model, data)]
        tried.append(np.array([middle / 2, *scales, *np.log([exponent, exponent, saturation, saturation])]))
    least = np.array([0.0, -50.0, -50.0, *np.log([0.02, 0.02, 1e-2, 1e-2])])
    most = np.array([float(losses.min()), 100.0, 100.0, *np.log([2.0, 2.0, 1e3, 1e3])])
    found = fit_from(np.array(tried), residuals, (least, most), of="the data-constrained law", delta=DELTA).parameters
    _check_determined(residuals, found)
    return _law(found)


def _check_determined(residuals: Residuals, x: Float64) -> None:
    """Refuse a law some of whose unknowns can move without moving a loss, as A with E in runs of one model size.

    Raises:
        FitError: with the unknowns.
    """
    steps = STEP * np.eye(NUM_UNKNOWNS)
    slopes = np.stack([(residuals(x + step) - residuals(x - step)) / (2 * STEP) for step in steps], axis=1)
    lengths = np.linalg.norm(slopes, axis=0)
    _, values, directions = np.linalg.svd(slopes / np.where(lengths > 0, lengths, 1), full_matrices=False)
    free = directions[values < SAME_DIRECTION * values[0]]
    if len(free):
        loose = [name for name, part in zip(UNKNOWNS, np.abs(free).max(axis=0), strict=True) if part > 0.1]
        raise FitError(
            f"the data-constrained law: the runs leave {len(free)} of its {NUM_UNKNOWNS} unknowns undetermined, among "
            f"{', '.join(loose)}; vary model sizes (also beyond what the unique tokens can use), tokens and repeats "
            f"independently"
        )


def _law(x: Float64) -> DataConstrainedLaw:
    return DataConstrainedLaw(float(x[0]), float(x[1]), float(x[2]), *np.exp(x[3:]).tolist())


def _numbers(law: DataConstrainedLaw) -> Float64:
    logs = np.log([law.model_exponent, law.data_exponent, law.data_saturation, law.model_saturation])
    return np.array([law.floor, law.log_model_scale, law.log_data_scale, *logs])
