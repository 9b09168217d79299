"""Measures scores on this process' part of probe batches, under DDP and under FSDP2, in a process of its own for each rank."""

from __future__ import annotations

import functools
import itertools
import json
import multiprocessing
import os
import socket
import sys
from pathlib import Path

import numpy as np
import torch
from composer import Trainer
from composer.utils import dist, get_device
from scoring import Exact, planted, small_model, state_of
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

from mixstream.callbacks.scores import PROVIDERS, provider_of
from mixstream.callbacks.scores.gradients import AggregateGradient
from mixstream.callbacks.scores.parameters import local
from mixstream.errors import ScoreError

ROWS = [5, 3, 4, 4]
WAYS = (("even", "papers"), ("uneven", "papers"), ("empty", "papers"), ("uneven", "transfer"))
TARGETS = {"papers": np.ones(4), "transfer": np.array([0.0, 1.0, 0.0, 0.5])}


def parts_of(total, ranks, sharing):
    """Return the rows of each rank; `empty`: the last one has none, `uneven`: most."""
    if ranks == 1:
        return [total]
    if sharing == "even":
        return [total // ranks] * ranks
    own = [1 + rank for rank in range(ranks - 1)]
    return [*own, total - sum(own)] if sharing == "uneven" else [total - sum(own[1:]), *own[1:], 0]


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
        device_train_microbatch_size=7,
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


def measured(state, names, key, ways=WAYS):
    """Return what all of `names` measure, in these ways, {"key name sharing targets": numbers}."""
    rank, ranks = dist.get_global_rank(), dist.get_world_size()
    first, second = planted(ROWS, seed=1), planted(ROWS, seed=2)
    told = {}
    for (sharing, targets), name in itertools.product(ways, names):
        parts = parts_of(sum(ROWS), ranks, sharing)
        scored, aggregate = (own_part(batch, parts, rank) for batch in (second, first))
        measure = functools.partial(provider_of(name).measure, state, scored, aggregate, TARGETS[targets])
        scores = untouched(state, measure)
        told[f"{key} {name} {sharing} {targets}"] = [*scores.scores, *scores.losses, scores.gradient_norm]
    return told


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


class TenTimes(torch.autograd.Function):
    """What says that its gradient is ten times what it is."""

    @staticmethod
    def forward(ctx, values):
        return values.clone()

    @staticmethod
    def backward(ctx, gradient):
        return 10 * gradient


class Boastful(Exact):
    def loss(self, outputs, batch):
        return TenTimes.apply(super().loss(outputs, batch))


def whole(state, part):
    """Measure where every rank has all parameters, under DDP if there are more."""
    told = measured(state, PROVIDERS, "ddp")
    fired, fd = [], provider_of("fd")
    if dist.get_world_size() > 1:
        state.model.register_comm_hook(None, lambda _, bucket: fired.append(bucket))
    fd.load_state_dict({"factor": 1.0, "until_check": 9})
    told["sent"] = numbers_sent(lambda: fd.measure(state, part, None, np.ones(4)))
    assert not fired
    some = {key: column[part["stream"] != 2] for key, column in part.items()}
    return told | {"missing": refusal(lambda: fd.measure(state, some, None, np.ones(4)))}


def sharded(part):
    """Measure where every rank has a shard of each parameter."""
    told = {}
    kinds = {"units": (Wrapped, "FULL", WAYS), "sharded float32": (Wrapped, "DEFAULT", [("uneven", "papers")])}
    if dist.get_world_size() == 2:
        kinds["one unit"] = (Exact, "FULL", WAYS[2:])
    for key, (kind, precision, ways) in kinds.items():
        model = small_model(kind) if precision == "DEFAULT" else small_model(kind).double()
        fsdp = {"fsdp": {"state_dict_type": "sharded", "mixed_precision": precision}}
        state = trainer_of(model, parallelism_config=fsdp).state
        told |= measured(state, ["fd"], key, ways)
        gradient = AggregateGradient()
        gradient.measure(state, state.model, part, np.ones(4))
        told[f"{key} factor"] = gradient._factor
        told[f"{key} parameters"] = sum(local(parameter).numel() for parameter in state.model.parameters())
    return told | refused(state, fsdp, part)


def refused(state, fsdp, part):
    """Return what is said of what cannot be measured."""
    told = {
        name: refusal(functools.partial(provider_of(name).measure, state, part, None, np.ones(4)))
        for name in ("jvp", "kbackward")
    }
    partly, old = small_model(), small_model()
    fully_shard(partly.model.model.layers[0])
    old.model = FullyShardedDataParallel(old.model, device_id=torch.device("cpu"))
    states = {
        "boastful": trainer_of(small_model(Boastful), parallelism_config=fsdp).state,
        "partly": state_of(partly),
        "old": state_of(old),
    }
    fd = provider_of("fd")
    return told | {
        name: refusal(functools.partial(fd.measure, own, part, None, np.ones(4))) for name, own in states.items()
    }


def on_a_rank(rank, ranks, port, out):
    """Be one of `ranks` processes, as a launcher would make it."""
    own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "NODE_RANK": 0}
    own |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "FSDP_VERSION": 2}
    os.environ |= {key: str(value) for key, value in own.items()}
    dist.initialize_dist(get_device("cpu"))
    part = own_part(planted(ROWS, seed=1), parts_of(sum(ROWS), ranks, "even"), rank)
    told = whole(trainer_of(small_model().double()).state, part)
    told |= measured(state_of(small_model(), 7), PROVIDERS, "float32", [("uneven", "papers")])
    if ranks > 1:
        told |= sharded(part)
    (out / f"{ranks}-{rank}.json").write_text(json.dumps(told))


def main(out):
    """Be 1, 2 and 4 processes in turn: what takes long to import is imported once."""
    for ranks in (1, 2, 4):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        children = [
            multiprocessing.get_context("fork").Process(target=on_a_rank, args=(rank, ranks, port, out), daemon=True)
            for rank in range(ranks)
        ]
        for child in children:
            child.start()
        for child in children:
            child.join(timeout=100)
        codes = [child.exitcode for child in children]
        assert codes == [0] * ranks, codes


if __name__ == "__main__":
    main(Path(sys.argv[1]))
