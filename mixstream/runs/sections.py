"""The sections of a recipe that tell of a model, of how it is trained, and of how learnt weights are averaged."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from mixstream.formats import FileModel
from mixstream.streams.cache.limit import check_cache_dir, limit_bytes
from mixstream.streams.manifest import MAX_COUNT

PositiveInt = Annotated[int, Field(gt=0, le=MAX_COUNT)]
NaturalInt = Annotated[int, Field(ge=0, le=MAX_COUNT)]
PositiveFloat = Annotated[float, Field(gt=0)]
NaturalFloat = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
ModelSize = Annotated[int, Field(gt=0, le=1 << 20)]

SIZES = ("hidden_size", "intermediate_size", "num_layers", "num_heads")


class ModelRecipe(FileModel):
    """A Llama of `transformers` to begin with, or a trained causal model to go on with: one of the two.

    Attributes:
        hidden_size, intermediate_size, num_layers, num_heads: of a Llama whose vocabulary is the streams' and whose
            context is their sequence length.
        num_kv_heads: its key-value heads; None: as many as heads.
        tie_embeddings: whether what it reads and what it writes share one table of tokens.
        pretrained: a Hugging Face checkpoint: a folder, such as OUT/model of another run, or a name on the hub.
    """

    hidden_size: ModelSize | None = None
    intermediate_size: ModelSize | None = None
    num_layers: ModelSize | None = None
    num_heads: ModelSize | None = None
    num_kv_heads: ModelSize | None = None
    tie_embeddings: bool = False
    pretrained: Annotated[str, Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _is_one_model(self) -> ModelRecipe:
        given = [key for key in SIZES if getattr(self, key) is not None]
        if self.pretrained is not None:
            more = [*given, *(["num_kv_heads"] if self.num_kv_heads else []), *["tie_embeddings"] * self.tie_embeddings]
            if more:
                raise ValueError(f"pretrained has a size of its own, but {', '.join(more)} is given; leave one out")
            return self
        if not given:
            raise ValueError(f"expected {', '.join(SIZES)} of a fresh model, or pretrained: a checkpoint's folder")
        missing = [key for key in SIZES if key not in given]
        if missing:
            raise ValueError(f"key {missing[0]!r} is missing; a fresh model needs {', '.join(SIZES)}")
        return self._with_heads_that_fit()

    def _with_heads_that_fit(self) -> ModelRecipe:
        hidden_size, num_heads = self.hidden_size or 0, self.num_heads or 1
        if hidden_size % (2 * num_heads):
            raise ValueError(f"hidden_size {hidden_size} is no multiple of 2 x num_heads ({num_heads})")
        if num_heads % (self.num_kv_heads or 1):
            raise ValueError(f"num_heads {num_heads} is no multiple of num_kv_heads ({self.num_kv_heads})")
        return self


class FsdpRecipe(FileModel):
    """A model sharded over processes: what of Composer's FSDP2 config a recipe can ask for.

    Attributes:
        reshard_after_forward: whether parameters are given back between a layer's forward and backward pass.
        activation_checkpointing: whether activations are computed again in the backward pass instead of kept.
        activation_cpu_offload: whether they are kept in the memory of the host.
        mixed_precision: what is kept and summed in the lower precision, as Composer names it.
        state_dict_type: of checkpoints. Whole ones can be resumed by any number of processes, with FSDP or without.
    """

    reshard_after_forward: bool = True
    activation_checkpointing: bool = False
    activation_cpu_offload: bool = False
    mixed_precision: Literal["DEFAULT", "PURE", "FULL"] = "DEFAULT"
    state_dict_type: str = "full"

    @field_validator("state_dict_type")
    @classmethod
    def _is_whole(cls, value: str) -> str:
        if value != "full":
            raise ValueError(
                "a run's checkpoints are whole ('full'), so that any number of processes can go on from them and "
                "--migrate can carry them over; leave the key out"
            )
        return value


class TrainingRecipe(FileModel):
    """How the model is trained: AdamW, linear warm-up, cosine decay, gradients clipped by norm.

    Attributes:
        final_learning_rate: share of the learning rate at the run's end.
        microbatch_size: rows of a forward pass on each rank.
        checkpoint_batches: batches between checkpoints.
        log_batches: batches between the lines of exposure.
        heldout_batches: batches between measurements on the held-out splits; None: at the end only.
        heldout_samples: rows of each held-out split to measure on; None: all.
        weight_lag: batches between new weights and the batch at which they act.
        cache_dir: folder of this machine for the raw files of shards that are compressed or in an object store; None:
            there are none.
        cache_limit: bytes that it may hold, as a number or a text such as ``200 GB``; None: as many as the disk.
        verify_hashes: whether each shard is compared with the hash that index.json notes.
        fsdp: how the model is sharded over the processes; None: each has all of it.
        compile: whether the forward and backward pass are compiled (`torch.compile`).
    """

    learning_rate: PositiveFloat
    final_learning_rate: Share = 0.1
    warmup_batches: NaturalInt = 0
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    max_grad_norm: PositiveFloat = 1.0
    microbatch_size: PositiveInt
    checkpoint_batches: PositiveInt
    log_batches: PositiveInt = 10
    heldout_batches: PositiveInt | None = None
    heldout_samples: PositiveInt | None = None
    weight_lag: NaturalInt = 8
    num_workers: NaturalInt = 0
    cache_dir: str | None = None
    cache_limit: int | str | None = None
    verify_hashes: bool = False
    device: Literal["cpu", "gpu"] = "cpu"
    precision: Literal["fp32", "amp_bf16"] = "fp32"
    fsdp: FsdpRecipe | None = None
    compile: bool = False

    @field_validator("cache_dir")
    @classmethod
    def _is_of_this_machine(cls, value: str | None) -> str | None:
        if value is not None:
            check_cache_dir(value)
        return value

    @field_validator("cache_limit")
    @classmethod
    def _is_a_size(cls, value: int | str | None) -> int | str | None:
        limit_bytes(value)
        return value

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> TrainingRecipe:
        if self.cache_limit is not None and self.cache_dir is None:
            raise ValueError(f"cache_limit {self.cache_limit} limits nothing without a cache_dir; give both")
        if self.precision == "amp_bf16" and self.device == "cpu":
            raise ValueError("precision amp_bf16 needs device gpu (Composer trains in fp32 on a CPU); use fp32")
        if self.num_workers > self.weight_lag:
            raise ValueError(f"num_workers {self.num_workers} read ahead beyond weight_lag {self.weight_lag}")
        return self


class AverageRecipe(FileModel):
    """Over which of its batches the weights that a run learnt are averaged: one of the three.

    Attributes:
        last: a share of the run, at its end.
        last_batches: so many batches at its end; XDoGE's are 10,000.
        half_life_batches: all of them, each counting half for every so many batches of age.
    """

    last: Annotated[float, Field(gt=0, le=1)] | None = None
    last_batches: PositiveInt | None = None
    half_life_batches: PositiveFloat | None = None

    @model_validator(mode="after")
    def _is_one(self) -> AverageRecipe:
        given = self.model_dump(exclude_none=True)
        if len(given) != 1:
            raise ValueError(f"expected one of last, last_batches, half_life_batches, found {', '.join(given) or None}")
        return self


Average = Literal["all"] | AverageRecipe


class AveragedRecipe(FileModel):
    """A recipe whose proxies' weights are averaged.

    Attributes:
        average: over which batches of a proxy: ``all``, or a part of them.
        average_last: the same as ``average: {last: ...}``.
    """

    average: Average | None = None
    average_last: Annotated[float, Field(gt=0, le=1)] | None = None

    @model_validator(mode="after")
    def _is_averaged_in_one_way(self) -> AveragedRecipe:
        if (self.average is None) == (self.average_last is None):
            raise ValueError("expected one of average (all, or {last_batches: 10000}) and average_last (a share)")
        return self

    @property
    def averaging(self) -> Average:
        """How it is averaged."""
        return self.average if self.average is not None else AverageRecipe(last=self.average_last)
