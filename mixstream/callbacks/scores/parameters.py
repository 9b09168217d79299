"""A model's trainable parameters, whole or sharded, and directions in their space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from composer.core import State
from composer.utils import dist
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
from torch.distributed.tensor import DTensor, Replicate

from mixstream.callbacks.rows import over_ranks
from mixstream.errors import ScoreError


@dataclass(frozen=True)
class Direction:
    """A vector v (P,) in the space of the parameters.

    Attributes:
        parts: its part at each trainable parameter, or at this rank's shard of it.
        squared_norm: |v|^2, of the parts of all ranks.
    """

    parts: list[torch.Tensor]
    squared_norm: float

    @property
    def norm(self) -> float:
        """Return |v|."""
        return math.sqrt(self.squared_norm)

    def divided(self, number: float) -> Direction:
        """Return v / `number`; the parts are changed in their place."""
        if self.parts:
            torch._foreach_div_(self.parts, number)
        return Direction(self.parts, self.squared_norm / number**2)


def trainable(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    """Return the parameters that training changes, tied ones once."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def is_sharded(model: torch.nn.Module) -> bool:
    """Tell whether FSDP2 keeps the parameters in shards, one a rank."""
    return any(isinstance(module, FSDPModule) for module in model.modules())


def check_sharding(model: torch.nn.Module) -> None:
    """Refuse what no score can be measured on.

    Raises:
        ScoreError: the model is sharded by the first FSDP, or only a part of it is sharded.
    """
    if any(isinstance(module, FullyShardedDataParallel) for module in model.modules()):
        raise ScoreError("the model is sharded by FSDP1, expected FSDP2; set FSDP_VERSION=2 in the environment")
    whole = [name for name, p in model.named_parameters() if p.requires_grad and not isinstance(p, DTensor)]
    if whole and is_sharded(model):
        raise ScoreError(
            f"FSDP2 shards the model, but not its parameters {', '.join(whole[:3])} ({len(whole)} in all); wrap the "
            f"whole model, or freeze them"
        )


def refuse_sharded(model: torch.nn.Module, name: str, why: str) -> None:
    """Refuse parameters in shards.

    Raises:
        ScoreError: the model has some.
    """
    if is_sharded(model) or any(isinstance(parameter, DTensor) for parameter in model.parameters()):
        raise ScoreError(f"the model's parameters are sharded (FSDP), and {name} {why}; use fd")


def reshard(model: torch.nn.Module) -> None:
    """Give back what FSDP2 gathered, so that parameters are the shards and the next forward gathers them anew.

    It keeps the outermost module's parameters whole after a forward: they would hide that shards have changed.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def local(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor's data on this rank, in their own place."""
    with torch.no_grad():
        return tensor.to_local() if isinstance(tensor, DTensor) else tensor.detach()


def empty_direction(parameters: Sequence[torch.nn.Parameter]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return zeros (P,) for all parameters' data on this rank, in float32 or wider, and views of it, one each."""
    places = [local(parameter) for parameter in parameters]
    dtype = torch.float32
    for place in places:
        dtype = torch.promote_types(dtype, place.dtype)
    device = places[0].device if places else torch.device("cpu")
    flat = torch.zeros(sum(place.numel() for place in places), dtype=dtype, device=device)
    ends = np.cumsum([place.numel() for place in places]).tolist()
    return flat, [flat[end - place.numel() : end].view(place.shape) for end, place in zip(ends, places, strict=True)]


def squared_norm(parameters: Sequence[torch.nn.Parameter], parts: Sequence[torch.Tensor], state: State) -> float:
    """Return |v|^2 in float64; of shards it is summed over ranks, of what ranks have in common it is taken once."""
    own = torch.zeros(2, dtype=torch.float64)  # of whole parameters, and of shards
    for parameter, part in zip(parameters, parts, strict=True):
        square = float(torch.linalg.vector_norm(part, dtype=torch.float64)) ** 2
        own[int(isinstance(parameter, DTensor))] += square / _num_copies(parameter)
    if any(isinstance(parameter, DTensor) for parameter in parameters):
        own[1] = float(over_ranks(own[1:], state)[0])
    return float(own.sum())


def _num_copies(parameter: torch.nn.Parameter) -> int:
    """Return the ranks that have the same shard of a parameter."""
    if not isinstance(parameter, DTensor):
        return 1
    shards = math.prod(
        size
        for size, placement in zip(parameter.device_mesh.shape, parameter.placements, strict=True)
        if not isinstance(placement, Replicate)
    )
    return dist.get_world_size() // shards
