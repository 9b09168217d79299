"""Measures scores on this process' part of probe batches, under DDP and under FSDP2; a launcher runs it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from composer import Trainer
from composer.utils import dist, get_device
from scoring import Exact, Toy, planted, small_model, state_of, toy_batch

from mixstream.callbacks.gradients import AggregateGradient
from mixstream.callbacks.parameters import local
from mixstream.callbacks.scores import PROVIDERS, provider_of
from mixstream.errors import ScoreError

ROWS = [5, 3, 4, 4]
TARGETS = {"papers": np.ones(4), "transfer": np.array([0.0, 1.0, 0.0, 0.5])}


def parts_of(total, ranks):
    """Return how `total` rows can be shared: {name: rows of each rank}."""
    even = [total // ranks] * ranks
    uneven = [1 + rank for rank in range(ranks)]
    uneven[-1] = total - sum(uneven[:-1])
    empty = [total // (ranks - 1) if rank else 0 for rank in range(ranks)] if ranks > 1 else [total]
    empty[-1] = total - sum(empty[:-1])
    return {"even": even, "uneven": uneven, "empty": empty}


def own_part(batch, parts, rank):
    start = sum(parts[:rank])
    return {key: column[start : start + parts[rank]] for key, column in batch.items()}


class Wrapped(Exact):
    """Each layer is a unit of FSDP, with its own all-gather, as in large models."""

    def fsdp_wrap_fn(self, module):
        return type(module).__name__ == "LlamaDecoderLayer"


def trainer_of(model, **options):
    return Trainer(
        model=model,
        optimizers=torch.optim.SGD(model.parameters(), lr=0.1),
        device="cpu",
        device_train_microbatch_size=3,
        progress_bar=False,
        **options,
    )


def untouched(state, measure):
    """Return what `measure` gives, having seen that gradients, parameters, modes and random numbers are as before."""
    state.model.train()
    parameters = list(state.model.parameters())
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    gradients, values = [p.grad for p in parameters], [local(p).clone() for p in parameters]
    chance = torch.get_rng_state()
    told = measure()
    assert torch.equal(torch.get_rng_state(), chance)
    assert all(module.training for module in state.model.modules())
    for parameter, again, gradient, value in zip(parameters, state.model.parameters(), gradients, values, strict=True):
        assert parameter is again
        assert parameter.grad is gradient
        assert (local(gradient) == 1).all()
        assert torch.equal(local(parameter), value)
    return told


def measured(state, names, told, key):
    """Measure by all of `names`, in all ways to share rows."""
    rank, ranks = dist.get_global_rank(), dist.get_world_size()
    first, second = planted(ROWS, seed=1), planted(ROWS, seed=2)
    for how, parts in parts_of(sum(ROWS), ranks).items():
        for targets, wanted in TARGETS.items():
            for name in names:
                scored, aggregate = (own_part(batch, parts, rank) for batch in (second, first))
                scores = untouched(state, lambda: provider_of(name).measure(state, scored, aggregate, wanted))  # noqa: B023
                told[f"{key} {name} {how} {targets}"] = [*scores.scores, *scores.losses, scores.gradient_norm]


def numbers_sent(measure):
    """Return the sizes of all reductions of a measurement."""
    sizes, reduce = [], dist.all_reduce

    def counted(tensor, reduce_operation="SUM", group=None):
        sizes.append(tensor.numel())
        return reduce(tensor, reduce_operation, group)

    dist.all_reduce = counted
    try:
        measure()
    finally:
        dist.all_reduce = reduce
    return sizes


def refusal(measure):
    try:
        measure()
    except ScoreError as error:
        return str(error)
    return "not refused"


class Steep(torch.autograd.Function):
    """Its gradient is not its own: ten times what it should be."""

    @staticmethod
    def forward(ctx, values):
        return values.clone()

    @staticmethod
    def backward(ctx, gradient):
        return 10 * gradient


def main(out: Path) -> None:
    dist.initialize_dist(get_device("cpu"))
    told = {}
    rank, ranks = dist.get_global_rank(), dist.get_world_size()
    batch = planted(ROWS, seed=1)
    part = own_part(batch, parts_of(sum(ROWS), ranks)["even"], rank)

    state = trainer_of(small_model().double()).state
    if ranks > 1:
        fired = []
        state.model.register_comm_hook(
            None, lambda _, bucket: fired.append(1) or torch.futures.Future().set_result(bucket.buffer())
        )
    measured(state, PROVIDERS, told, "ddp")
    if ranks > 1:
        assert not fired
    fd = provider_of("fd")
    fd.load_state_dict({"factor": 1.0, "until_check": 9})
    told["sent"] = numbers_sent(lambda: fd.measure(state, part, None, np.ones(4)))
    told["missing"] = refusal(
        lambda: fd.measure(state, {key: column[part["stream"] != 2] for key, column in part.items()}, None, np.ones(4))
    )
    measured(state_of(small_model(), 3), PROVIDERS, told, "float32")

    fsdp = {"fsdp": {"state_dict_type": "sharded", "mixed_precision": "FULL"}}
    for kind in (Exact, Wrapped):
        state = trainer_of(small_model(kind).double(), parallelism_config=fsdp).state
        measured(state, ["fd"], told, kind.__name__)
    told["parameters"] = sum(local(p).numel() for p in state.model.parameters())
    for name in ("jvp", "kbackward"):
        told[name] = refusal(lambda: provider_of(name).measure(state, part, None, np.ones(4)))  # noqa: B023
    gradient = AggregateGradient()
    gradient.measure(state, state.model, part, np.ones(4))
    told["factor"] = gradient._factor

    toy = Toy(lambda weight, x: Steep.apply(x @ weight), torch.rand(6, generator=torch.Generator().manual_seed(1)))
    state = trainer_of(toy, parallelism_config=fsdp).state
    told["steep"] = refusal(
        lambda: provider_of("fd").measure(state, toy_batch(torch.eye(6), [0, 1] * 3), None, np.ones(2))
    )
    (out / f"rank{rank}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
