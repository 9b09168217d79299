"""How much compute for pre-training, how much for specialising on a domain.

Of a model of N parameters after D tokens of pre-training and D' tokens of the domain:

    L(N, D, D') = E + A / N^a + B / (D + D_0)^b + C / (D' + kappa D^rho)^c

kappa D^rho is what pre-training is worth in tokens of the domain; D_0 >= 0 stands for what came before it. One
pre-trained model serves M domains, so a compute budget F pays

    6 N (D + M D') = F          and the split x = D / (D + M D') is sought on a grid, then by golden section.

Source: Seto et al. 2026 (arXiv 2603.19149) fit such a law and choose the split by it, but its form was not readable
to us: THE FORM ABOVE IS OUR READING (after Hernandez et al. 2021, arXiv 2102.01293, for the effective tokens that are
carried over), and so are fit and search. Check its predictions on held-out runs before trusting a split.

Inside, N, D and D' are divided by references N_0, D_0, D'_0, so that A, B, C are nats/token.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from mixstream.errors import FitError
from mixstream.methods.mixture_law.law import least_on_log_grid
from mixstream.methods.muennighoff import FLOPS_PER_PARAMETER_AND_TOKEN
from mixstream.methods.planning.fitting import fit_from
from mixstream.mixture.simplex import Float64

DELTA = 0.01  # of Huber's loss, on relative errors
LEAST_SPLIT = 1e-4
LEAST_SIZES = 3


@dataclass(frozen=True)
class SplitLaw:
    """The law of one domain's loss.

    Attributes:
        floor: E, nats/token.
        model_scale, model_exponent: A at N_0, and a; A = 0 in a law of one model size.
        data_scale, data_exponent: B at the reference of D, and b.
        domain_scale, domain_exponent: C at the reference of D', and c.
        carried, carried_exponent: kappa, in references of D' that the reference of D is worth, and rho.
        before: D_0, tokens.
        reference_parameters, reference_tokens, reference_domain: N_0, and those of D and D'.
    """

    floor: float
    model_scale: float
    model_exponent: float
    data_scale: float
    data_exponent: float
    domain_scale: float
    domain_exponent: float
    carried: float
    carried_exponent: float
    before: float = 0.0
    reference_parameters: float = 1.0
    reference_tokens: float = 1.0
    reference_domain: float = 1.0

    def predict(self, parameters: Float64 | float, tokens: Float64 | float, domain_tokens: Float64 | float) -> Float64:
        """Return L(N, D, D') in nats/token, of the shape that they have together.

        Args:
            parameters: N > 0.
            tokens: D >= 0 of pre-training; above 0 where D_0 is 0.
            domain_tokens: D' >= 0.

        Raises:
            FitError: a number that is none of these.
        """
        model, data, domain = _checked(parameters, tokens, domain_tokens)
        if (data + self.before == 0).any():
            raise FitError("0 tokens of pre-training, and the law knows of none before; expected more than 0")
        general = (data + self.before) / self.reference_tokens
        special = domain / self.reference_domain
        carried = self.carried * (data / self.reference_tokens) ** self.carried_exponent
        losses: Float64 = (
            self.floor
            + self.model_scale * (model / self.reference_parameters) ** -self.model_exponent
            + self.data_scale * general**-self.data_exponent
            + self.domain_scale * (special + carried) ** -self.domain_exponent
        )
        return losses

    def best_split(self, flops: float, parameters: float, *, domains: int = 1, most_domain: float = math.inf) -> Split:
        """Return the split of a compute budget at which the loss is least.

        Args:
            flops: F > 0, of pre-training and all domains together.
            parameters: N > 0.
            domains: M >= 1 that share the pre-training, each with D' tokens of its own.
            most_domain: greatest D', such as the tokens that there are; the rest goes to pre-training.

        Raises:
            FitError: numbers that are none of these.
        """
        if not (0 < flops < math.inf and 0 < parameters < math.inf and domains >= 1 and most_domain > 0):
            raise FitError(
                f"{flops:g} FLOPs, {parameters:g} parameters, {domains} domains of at most {most_domain:g} tokens; "
                f"expected finite numbers above 0 (the last may be infinite)"
            )
        total = flops / FLOPS_PER_PARAMETER_AND_TOKEN / parameters
        most = min(1 - LEAST_SPLIT, domains * most_domain / total)

        def loss_of(specialised: Float64) -> Float64:
            return self.predict(parameters, total * (1 - specialised), total * specialised / domains)

        share, loss = least_on_log_grid(loss_of, (min(LEAST_SPLIT, most / 2), most), of="the best split")
        without = float(self.predict(parameters, total, 0.0))
        if without <= loss:
            share, loss = 0.0, without
        return Split(1 - share, total * (1 - share), total * share / domains, loss)


@dataclass(frozen=True)
class Split:
    """A split of a compute budget.

    Attributes:
        share: x = D / (D + M D') of the tokens, and of the compute, that goes to pre-training.
        tokens: D.
        domain_tokens: D' of each domain.
        loss: that the law expects, nats/token.
    """

    share: float
    tokens: float
    domain_tokens: float
    loss: float


def fit_split(
    parameters: Float64 | float, tokens: Float64, domain_tokens: Float64, losses: Float64, *, before: float = 0.0
) -> SplitLaw:
    """Return the law that fits runs best.

    Args:
        parameters: (n,) N, or one number; of one size alone, the law has no term of N.
        tokens, domain_tokens: (n,) D and D'; some runs should have D' = 0.
        losses: (n,) of the domain, nats/token.
        before: D_0, which is not fitted.

    Raises:
        FitError: wrong numbers, two model sizes, fewer runs than unknowns, or no convergence.
    """
    model, data, domain = _checked(parameters, tokens, domain_tokens)
    if losses.shape != data.shape or not (np.isfinite(losses) & (losses > 0)).all():
        raise FitError(f"losses {np.asarray(losses).tolist()[:3]}...; expected one finite number above 0 for every run")
    if not ((data > 0).all() and before >= 0):
        raise FitError(
            f"tokens of pre-training from {data.min():g}, {before:g} before; expected above 0, and at least 0"
        )
    _check_enough(model, data, domain)
    sized = len(np.unique(model)) > 1
    trained = domain[domain > 0]
    references = {
        "before": before,
        "reference_parameters": _middle(model),
        "reference_tokens": _middle(data),
        "reference_domain": _middle(trained),
    }

    def residuals(x: Float64) -> Float64:
        return np.asarray(_law(x, sized, references).predict(model, data, domain) / losses - 1)

    floor, spread = float(losses.min()), float(np.ptp(losses)) + 1e-3
    tried = [
        np.array([floor * 0.7, *np.log([spread / 2, exponent, spread, domain_exponent, carried, 0.7, spread / 2, 0.3])])
        for exponent, domain_exponent, carried in itertools.product((0.2, 0.5), (0.2, 0.5), (0.03, 0.3))
    ]
    least = np.array([0.0, *np.log([1e-6, 0.02, 1e-6, 0.02, 1e-8, 0.02, 1e-6, 0.02])])
    most = np.array([floor, *np.log([1e3, 3.0, 1e3, 3.0, 1e4, 3.0, 1e3, 3.0])])
    count = 9 if sized else 7
    fit = fit_from(
        np.array(tried)[:, :count],
        residuals,
        (least[:count], most[:count]),
        of="the law of pre-training and specialising",
        delta=DELTA,
    )
    return _law(fit.parameters, sized, references)


def _check_enough(model: Float64, data: Float64, domain: Float64) -> None:
    sizes = len(np.unique(model))
    if 1 < sizes < LEAST_SIZES:
        raise FitError(f"runs of {sizes} model sizes; expected 1, or {LEAST_SIZES} and more to fit what size changes")
    needed = 9 if sizes > 1 else 7
    if len(model) < needed:
        raise FitError(
            f"{len(model)} runs for the {needed} unknowns of the law of pre-training and specialising; "
            f"{needed - len(model)} more are needed at least"
        )
    for what, values in (("D", data), ("D'", domain)):
        if len(np.unique(values)) < LEAST_SIZES:
            raise FitError(
                f"{what} has {len(np.unique(values))} different values over {len(model)} runs; expected {LEAST_SIZES} "
                f"or more, varied independently"
            )


def _law(x: Float64, sized: bool, references: dict[str, float]) -> SplitLaw:
    """Return the law of x = (E, log B, b, C, c, kappa, rho, and A, a)."""
    data_scale, data_exponent, domain_scale, domain_exponent, carried, rho = np.exp(x[1:7]).tolist()
    model_scale, model_exponent = np.exp(x[7:]).tolist() if sized else (0.0, 0.0)
    return SplitLaw(
        float(x[0]),
        model_scale,
        model_exponent,
        data_scale,
        data_exponent,
        domain_scale,
        domain_exponent,
        carried,
        rho,
        **references,
    )


def _checked(
    parameters: Float64 | float, tokens: Float64 | float, domain_tokens: Float64 | float
) -> tuple[Float64, Float64, Float64]:
    """Return N, D and D' as arrays of one shape.

    Raises:
        FitError: N not above 0, D or D' below 0, or not finite.
    """
    arrays = np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in (parameters, tokens, domain_tokens)))
    for what, values, fine in (
        ("parameters", arrays[0], arrays[0] > 0),
        ("tokens of pre-training", arrays[1], arrays[1] >= 0),
        ("tokens of the domain", arrays[2], arrays[2] >= 0),
    ):
        bad = ~(fine & np.isfinite(values))
        if bad.any():
            raise FitError(f"{what}: found {values[bad][0]:g}, expected a finite number {_least(what)}")
    return arrays[0], arrays[1], arrays[2]


def _least(what: str) -> str:
    return "above 0" if what == "parameters" else "of at least 0"


def _middle(values: Float64) -> float:
    """Return the geometric mean."""
    return float(np.exp(np.log(values).mean()))
