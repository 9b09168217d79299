"""A recipe's section `method` becomes the callbacks that learn weights, once all that can be checked has been."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
from composer.core import Callback
from composer.utils import dist

from mixstream.callbacks.online import OnlineWeights, Timing
from mixstream.callbacks.scores import provider_of
from mixstream.callbacks.signals import Alignment, Excess, NoSignal, SignalSource, TrainingLosses
from mixstream.callbacks.weighting import LossWeights
from mixstream.errors import RecipeError, nearest
from mixstream.loader import MixtureLoader
from mixstream.methods.ado import ADO
from mixstream.methods.doremi import DoReMi
from mixstream.methods.families import family_prior
from mixstream.methods.learning.bounds import Bounds, repeat_caps
from mixstream.methods.learning.learner import Learner
from mixstream.methods.learning.online import Method
from mixstream.methods.learning.stages import Join, Stages, present_weights
from mixstream.methods.odm import ODM
from mixstream.methods.temperature import TemperatureAnneal
from mixstream.methods.xdoge import XDoGE
from mixstream.mixture.apportion import MAX_BATCH_SIZE
from mixstream.mixture.budget import repeat_budgets
from mixstream.mixture.build import build_plan
from mixstream.mixture.plan import Plan, named
from mixstream.mixture.simplex import Float64, check_floor
from mixstream.runs.methods import (
    AdoRecipe,
    DoremiRecipe,
    MethodRecipe,
    OdmRecipe,
    StageRecipe,
    TemperatureRecipe,
    XdogeRecipe,
)
from mixstream.runs.model import CausalLM
from mixstream.runs.pretrained import check_pretrained, load_pretrained
from mixstream.streams.catalog import Catalog
from mixstream.streams.manifest import TokenizerInfo

REFERENCE_KEY = "method.reference"
Bools = npt.NDArray[np.bool_]


def first_weights(method: MethodRecipe, plan: Plan) -> dict[str, float] | None:
    """Return the weights to plan with, where streams join later: none of theirs; None where none do.

    Raises:
        MixtureError: stages that cannot be, or no stream with weight is there at first.
    """
    if not method.stages:
        return None
    presence = _stages(method.stages, plan).presence(0)
    return dict(named(present_weights(plan.weights, presence), plan.streams))


def plan_probe(method: MethodRecipe, plan: Plan, catalog: Catalog) -> Plan | None:
    """Return a uniform plan, the same number of rows of each stream in a batch, for as often as weights are learnt.

    Returns:
        The plan; None where the method needs no probes.
    """
    rows = method.rows_per_stream * len(plan.streams)
    if not rows:
        return None
    probes = method.probes_per_update * (plan.num_batches // method.interval_batches + 1)
    return build_plan(
        catalog,
        weights="uniform",
        budget_tokens=probes * rows * plan.sequence_length,
        batch_size=rows,
        sequence_length=plan.sequence_length,
        window_samples=plan.window_samples,
        seed=plan.seed + 1,
    )


def check_method(method: MethodRecipe, plan: Plan, weight_lag: int) -> None:
    """Refuse a run that is too short to learn weights, or whose processes cannot share its probes.

    Raises:
        RecipeError, FloorError: with the numbers.
    """
    first = max(1, -(-method.warmup_batches // method.interval_batches)) * method.interval_batches
    if first + weight_lag >= plan.num_batches:
        raise RecipeError(
            f"the first learnt weights would act at batch {first + weight_lag} (method.warmup_batches, "
            f"interval_batches and training.weight_lag), but the run has {plan.num_batches} batches; lower them or "
            f"raise mixture.budget_tokens"
        )
    if isinstance(method, AdoRecipe) and plan.num_batches <= method.start_batches:
        raise RecipeError(
            f"ADO fits its first laws after method.start_batches {method.start_batches:,}, but the run has "
            f"{plan.num_batches:,} batches; lower it, and method.ignore_batches below it"
        )
    if isinstance(method, AdoRecipe):
        check_floor(method.least, len(plan.streams))
    _check_joins(method, plan, weight_lag)
    ranks, per_stream = dist.get_world_size(), method.rows_per_stream
    rows = per_stream * len(plan.streams)
    if rows > MAX_BATCH_SIZE:
        raise RecipeError(
            f"method.sequences_per_stream is {per_stream}, a probe of {len(plan.streams)} streams {rows:,} rows; "
            f"expected {MAX_BATCH_SIZE:,} at most"
        )
    if rows % ranks:
        raise RecipeError(
            f"a probe has {per_stream} sequences of {len(plan.streams)} streams, {rows} rows, which {ranks} processes "
            f"cannot share evenly; change method.sequences_per_stream"
        )
    if isinstance(method, XdogeRecipe) and method.probe != "same_batch":
        _check_independence(method, plan)


def _check_independence(method: XdogeRecipe, plan: Plan) -> None:
    """Refuse probes so large that the two sides of an update must have samples in common.

    Raises:
        RecipeError: with the numbers.
    """
    taken, least = method.rows_per_stream * method.probes_per_update, int(plan.sizes.min())
    if least < taken:
        raise RecipeError(
            f"stream {plan.streams[int(plan.sizes.argmin())]} has {least} samples, but an update takes {taken} of each "
            f"stream: some would be on both sides of a score, which is then biased as of probe same_batch; lower "
            f"method.sequences_per_stream from {method.sequences_per_stream}, or add data"
        )


def _check_joins(method: MethodRecipe, plan: Plan, weight_lag: int) -> None:
    """Refuse streams that would be there from the first batch, or would never be read.

    Raises:
        RecipeError: with the numbers.
    """
    for stage in method.stages:
        at_batch = _batch_of(stage.at, plan)
        there = at_batch + (_batch_of(stage.ramp, plan) > 0)  # a ramp begins at 0
        read_from = -(-there // method.interval_batches) * method.interval_batches + weight_lag
        if at_batch < 1 or read_from >= plan.num_batches:
            raise RecipeError(
                f"method.stages lets {', '.join(stage.streams)} join at batch {at_batch}, and so be read from batch "
                f"{read_from if at_batch else 0} (method.interval_batches, training.weight_lag), but the run's batches "
                f"are 0 to {plan.num_batches - 1}; expected one of them, after 0: change `at`"
            )


def learner_of(method: MethodRecipe, plan: Plan, start: Float64) -> Learner:
    """Return what decides of the weights.

    Args:
        method: the recipe's section.
        plan: of the run.
        start: (K,) first weights, as if all streams were there from the first. A stream of weight 0 is left out, if
            the mixture has no floor.

    Raises:
        MixstreamError: floors and caps that leave no mixture; a stream or language that is not there.
    """
    return Learner(method_of(method, plan), _bounds(method, plan, start), _stages(method.stages, plan), start)


def _is_read(plan: Plan, start: Float64) -> Bools:
    return (start > 0) | (plan.floor > 0)


def _bounds(method: MethodRecipe, plan: Plan, start: Float64) -> Bounds:
    is_read = _is_read(plan, start)
    floor = plan.floor if method.floor is None else method.floor
    numbers = np.unique(languages_of(plan), return_inverse=True)[1] if method.floor_of == "language" else None
    has_floor = is_read if numbers is None else np.bincount(numbers, is_read) > 0
    check_floor(floor, int(has_floor.sum()), "streams" if numbers is None else "languages")
    cap = np.where(is_read, _caps(method, plan), 0.0)
    bounds = Bounds(np.where(has_floor, floor, 0.0), cap, method.floor_form, numbers, plan.streams)
    if bounds.warning is not None:
        warnings.warn(bounds.warning, UserWarning, stacklevel=2)
    return bounds


def targets_of(method: MethodRecipe, plan: Plan, start: Float64) -> Float64:
    """Return the coefficient of each stream's loss in what is to fall, (K,).

    Raises:
        RecipeError: a target is no stream.
    """
    asked = method.targets if isinstance(method, XdogeRecipe) else None
    if asked is None:
        return _is_read(plan, start).astype(np.float64)
    unknown = [name for name in asked if name not in plan.streams]
    if unknown:
        raise RecipeError(f"method.targets names {unknown[0]!r}, which is no stream{nearest(unknown[0], plan.streams)}")
    return np.isin(plan.streams, asked).astype(np.float64)


def learning_callbacks(
    method: MethodRecipe, start: Float64, loader: MixtureLoader, probe: MixtureLoader | None, log: Path
) -> list[Callback]:
    """Return the callbacks that learn weights, in the order in which they are to see a batch.

    Args:
        method: the recipe's section.
        start: (K,) first weights.
        loader: of the training.
        probe: of the probes, if the method needs any.
        log: path of weights.jsonl.
    """
    plan = loader.plan
    loss_weights = LossWeights(start) if method.apply == "loss" else None
    learner = OnlineWeights(
        loader,
        method.name,
        learner_of(method, plan, start),
        signal_of(method, plan, probe),
        targets_of(method, plan, start),
        Timing(
            method.interval_batches,
            method.warmup_batches,
            method.eta if isinstance(method, XdogeRecipe) else None,
            method.max_refused,
        ),
        log,
        loss_weights,
    )
    return [learner] if loss_weights is None else [learner, loss_weights]


def method_of(method: MethodRecipe, plan: Plan) -> Method:
    """Return the method that a recipe names."""
    if isinstance(method, XdogeRecipe):
        prior = None if method.families is None else family_prior(method.families, languages_of(plan))
        return XDoGE(
            mu=method.mu,
            form=method.form,
            ema=method.ema,
            prior=prior,
            prior_strength=method.prior_strength,
            saturation=method.saturation,
        )
    if isinstance(method, DoremiRecipe):
        return DoReMi(eta=method.eta, smoothing=method.smoothing)
    if isinstance(method, OdmRecipe):
        return ODM(reward_scale=method.reward_scale)
    if isinstance(method, AdoRecipe):
        return ADO(
            ignore_batches=method.ignore_batches,
            start_batches=method.start_batches,
            refit_batches=method.refit_batches,
            least=method.least,
        )
    assert isinstance(method, TemperatureRecipe), "the last of them"
    return TemperatureAnneal(start=method.start, end=method.end)


def signal_of(method: MethodRecipe, plan: Plan, probe: MixtureLoader | None) -> SignalSource:
    """Return what measures for a method, on batches of `probe` if it needs any."""
    if isinstance(method, XdogeRecipe):
        assert probe is not None, "it was planned"
        return Alignment(probe, provider_of(method.scores), method.probe)
    if isinstance(method, DoremiRecipe):
        assert probe is not None, "it was planned"
        return Excess(probe, CausalLM(load_pretrained(_reference(method.reference), REFERENCE_KEY)))
    if isinstance(method, TemperatureRecipe):
        return NoSignal()
    return TrainingLosses(len(plan.streams))


def _stages(stages: tuple[StageRecipe, ...], plan: Plan) -> Stages:
    joins = (Join(stage.streams, _batch_of(stage.at, plan), _batch_of(stage.ramp, plan)) for stage in stages)
    return Stages(plan.streams, tuple(joins))


def _batch_of(share: float, plan: Plan) -> int:
    return round(share * plan.num_batches)


def _caps(method: MethodRecipe, plan: Plan) -> Float64:
    caps = method.caps
    if caps is None:
        return np.ones(len(plan.streams))
    budgets = repeat_budgets(caps.max_repeats, plan.streams)
    limits = np.array([np.inf if budget is None else budget for budget in budgets])
    return repeat_caps(limits, plan.sizes * plan.sequence_length * caps.size, caps.budget_tokens)


def languages_of(plan: Plan) -> list[str]:
    """Return each stream's language; its name, where it does not say one."""
    return [entry.language or entry.name for entry in plan.entries]


def _reference(name: str) -> str:
    """Return the checkpoint that a run left, or the one that is named."""
    left = Path(name) / "model"
    return str(left) if left.is_dir() else name


def check_reference(method: MethodRecipe, plan: Plan, tokenizer: TokenizerInfo) -> None:
    """Refuse a reference model that cannot judge the plan's tokens.

    Raises:
        RecipeError: it is not there, or has learnt other tokens.
    """
    if isinstance(method, DoremiRecipe):
        check_pretrained(_reference(method.reference), plan, tokenizer, REFERENCE_KEY)
