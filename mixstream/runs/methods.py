"""The recipe's section `method`: which online method learns the weights, and how. One registry, by `name`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from mixstream.formats import FileModel
from mixstream.runs.sections import NaturalFloat, NaturalInt, PositiveFloat, PositiveInt, Share


class CapsRecipe(FileModel):
    """Caps of the weights from repeat budgets: alpha_i <= R_max U_i / D of the run that is to use them.

    Attributes:
        budget_tokens: D, of that run.
        max_repeats: R_max, of each stream or of all.
        size: how many times as large its streams are as these: D_target / D_proxy of a proxy view.
    """

    budget_tokens: PositiveInt
    max_repeats: PositiveFloat | dict[str, PositiveFloat]
    size: PositiveFloat = 1.0


class StageRecipe(FileModel):
    """Streams that join later.

    Attributes:
        streams: their names.
        at: share of the run after which they join.
        ramp: share of the run in which they come to their full weight.
    """

    streams: Annotated[tuple[str, ...], Field(min_length=1)]
    at: Annotated[float, Field(gt=0, lt=1)]
    ramp: Share = 0.0


class OnlineRecipe(FileModel):
    """What all methods have in common.

    Attributes:
        interval_batches: batches between updates.
        warmup_batches: no update before.
        floor: least weight; None: the mixture's floor.
        floor_form: how weights are brought to the floor; see `mixstream.methods.learning.bounds`.
        floor_of: what has a floor: each stream, or each language with all its streams.
        apply: ``sampling``: the loader follows; ``loss``: it keeps the plan's weights, and rows count alpha_i / p_i.
        caps: greatest weights; None: none but those that the loader keeps.
        stages: streams that join later.
        max_refused: updates in a row that may be refused since what was measured is not finite.
    """

    interval_batches: PositiveInt
    warmup_batches: NaturalInt = 0
    floor: Share | None = None
    floor_form: Literal["kl", "l2", "mix", "clip"] = "kl"
    floor_of: Literal["stream", "language"] = "stream"
    apply: Literal["sampling", "loss"] = "sampling"
    caps: CapsRecipe | None = None
    stages: tuple[StageRecipe, ...] = ()
    max_refused: NaturalInt = 5

    @model_validator(mode="after")
    def _reads_what_joins(self) -> OnlineRecipe:
        if self.apply == "loss" and self.stages:
            raise ValueError(
                "stages hold streams back from being read, and with apply: loss what is read never changes, so they "
                "would never join; use apply: sampling, or leave stages out"
            )
        return self

    @property
    def rows_per_stream(self) -> int:
        """Rows of each stream in a probe batch; 0: there are no probes."""
        return 0

    @property
    def probes_per_update(self) -> int:
        """Probe batches of an update."""
        return 0


class ProbingRecipe(OnlineRecipe):
    """Of the methods that measure on probe batches of their own.

    Attributes:
        sequences_per_stream: rows of each stream in a probe batch.
    """

    sequences_per_stream: PositiveInt = 8

    @property
    def rows_per_stream(self) -> int:
        """Rows of each stream in a probe batch."""
        return self.sequences_per_stream

    @property
    def probes_per_update(self) -> int:
        """Probe batches of an update."""
        return 1


class XdogeRecipe(ProbingRecipe):
    """XDoGE, and DoGE; see `mixstream.methods.xdoge`.

    Attributes:
        mu: step of the mirror descent; smaller moves further.
        eta: learning rate of the updates; None: the model's, as the papers have it.
        scores: how W is computed: central differences, forward mode, or K backward passes.
        probe: which batches the two gradients of W come from; ``same_batch`` is the papers'; of ``half_split``, two
            batches by turns, each has half of the sequences.
        form: of the update; ``normalised``: clipped, as DoGE's code has it.
        ema: share of the old scores in their moving mean.
        targets: streams whose losses are to fall; None: all. One of weight 0 in the mixture is not trained on.
        saturation: R*, at which repeats have lost 63 % of their worth; None: scores do not depend on repeats.
        families: tree of language families, whose prior pulls the weights; None: no prior.
        prior_strength: how strongly: lambda, beside mu; as much as mu halves the distance at each update.
    """

    name: Literal["xdoge"]
    mu: PositiveFloat
    eta: PositiveFloat | None = None
    scores: Literal["fd", "jvp", "kbackward"] = "fd"
    probe: Literal["crossfit", "same_batch", "half_split"] = "crossfit"
    form: Literal["paper", "normalised"] = "paper"
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    saturation: PositiveFloat | None = None
    families: dict[str, Any] | None = None
    prior_strength: NaturalFloat = 0.0

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> XdogeRecipe:
        if self.probe == "half_split" and self.sequences_per_stream % 2:
            raise ValueError(f"sequences_per_stream {self.sequences_per_stream} has no halves; give an even number")
        if (self.families is None) != (self.prior_strength == 0):
            raise ValueError("families and prior_strength go together; give both or neither")
        return self

    @property
    def rows_per_stream(self) -> int:
        """Rows of each stream in a probe batch."""
        return self.sequences_per_stream // (2 if self.probe == "half_split" else 1)

    @property
    def probes_per_update(self) -> int:
        """Probe batches of an update."""
        return 1 if self.probe == "same_batch" else 2


class DoremiRecipe(ProbingRecipe):
    """DoReMi; see `mixstream.methods.doremi`.

    Attributes:
        reference: the reference model: folder of a run that has ended, or a Hugging Face checkpoint.
        eta: step of the update.
        smoothing: share of the uniform weights in what the method wants.
    """

    name: Literal["doremi"]
    reference: str
    eta: PositiveFloat = 1.0
    smoothing: Share = 1e-3


class OdmRecipe(OnlineRecipe):
    """ODM, a bandit (EXP3) that likes streams of high loss; see `mixstream.methods.odm`.

    Attributes:
        reward_scale: nats/token that count as a reward of 1.
    """

    name: Literal["odm"]
    reward_scale: PositiveFloat = 10.0


class AdoRecipe(OnlineRecipe):
    """ADO, which fits each stream's scaling law online; see `mixstream.methods.ado`.

    Attributes:
        ignore_batches: batches at the run's begin that no law is fitted to.
        start_batches: batches before the first fit.
        refit_batches: batches between fits.
        least: least preference of a stream.
    """

    name: Literal["ado"]
    ignore_batches: NaturalInt = 500
    start_batches: PositiveInt = 1000
    refit_batches: PositiveInt = 1000
    least: Share = 0.01


class TemperatureRecipe(OnlineRecipe):
    """A temperature that goes from `start` to `end` in the course of the run; see `mixstream.methods.temperature`."""

    name: Literal["temperature"]
    start: PositiveFloat
    end: PositiveFloat


MethodRecipe = Annotated[
    XdogeRecipe | DoremiRecipe | OdmRecipe | AdoRecipe | TemperatureRecipe, Field(discriminator="name")
]
