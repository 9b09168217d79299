"""Draws to tensors: a map-style dataset that reads a batch in one call.

Composer asks it for its state (`state_dict(num_samples, from_beginning)`) and gives that back at a resume
(`load_state_dict`), which switches off Composer's replay of past batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from mixstream.errors import ShardError
from mixstream.loader.sampler import Draws, MixtureSampler
from mixstream.loader.state import dump_state, parse_state
from mixstream.mixture.plan import Plan
from mixstream.streams.catalog import Stream
from mixstream.streams.index import Int64
from mixstream.streams.shard import OpenShards, Tokens, shard_starts

Batch = dict[str, torch.Tensor]


class StreamReader:
    """Reads rows of one stream."""

    def __init__(self, stream: Stream, shards: OpenShards) -> None:
        """Read `stream` through `shards`, which the streams of a dataset share."""
        self._stream = stream
        self._starts = shard_starts(stream.index.shard_samples)
        self._shards = shards

    def read(self, rows: Int64) -> Tokens:
        """Return the tokens of `rows` (n,) as (n, sequence_length) int64.

        Raises:
            ShardError: a shard that is not what index.json says, or of another sequence length.
        """
        tokens = np.empty((len(rows), self._stream.sequence_length), dtype=np.int64)
        shard_of = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(shard_of):
            here = shard_of == number
            shard = self._shards.get(self._stream.name, int(number), self._stream.open_shard)
            found = shard.read(rows[here] - self._starts[number])
            if found.shape[1] != tokens.shape[1]:
                raise ShardError(
                    f"stream {self._stream.name!r}: shard {self._stream.index.files[number]} has samples of "
                    f"{found.shape[1]} tokens, expected {tokens.shape[1]}"
                )
            tokens[here] = found
        return tokens


def stream_readers(streams: Sequence[Stream]) -> list[StreamReader]:
    """Return a reader of each stream, which together keep a bounded number of shards open."""
    shards = OpenShards()
    return [StreamReader(stream, shards) for stream in streams]


class MixtureDataset(Dataset[Batch]):
    """The plan's samples; an index is a `Draws` of a whole batch."""

    def __init__(self, plan: Plan, streams: Sequence[Stream], sampler: MixtureSampler) -> None:
        """Read `streams`, in the plan's order; `sampler` knows the state."""
        self._plan = plan
        self._streams = list(streams)
        self._readers: list[StreamReader] = []
        self._sampler: MixtureSampler | None = sampler

    def __len__(self) -> int:
        return self._plan.num_batches * self._plan.batch_size

    def __getitems__(self, draws: Draws) -> Batch:
        """Return a batch of n rows: input_ids, labels (n, sequence); stream, sample, repeat (n,); int64."""
        if not self._readers:  # shards are opened in the process that reads
            self._readers = stream_readers(self._streams)
        tokens = np.empty((len(draws.stream), self._plan.sequence_length), dtype=np.int64)
        for number in np.unique(draws.stream):
            here = draws.stream == number
            tokens[here] = self._readers[number].read(draws.sample[here])
        input_ids = torch.from_numpy(tokens)
        return {
            "input_ids": input_ids,
            "labels": input_ids.clone(),
            "stream": torch.from_numpy(draws.stream.astype(np.int64)),
            "sample": torch.from_numpy(draws.sample),
            "repeat": torch.from_numpy(draws.repeat),
        }

    def state_dict(self, num_samples: int, from_beginning: bool) -> str:
        """Return the state after `num_samples` trained samples of this run, for Composer.

        Composer counts what is trained, the loader what it handed out: within a batch that is one more.
        """
        sampler = self._own_sampler()
        within = sampler.trained_within(num_samples // self._plan.batch_size)
        return dump_state(sampler.state(sampler.consumed - 1 if within else None), self._plan)

    def load_state_dict(self, state: str) -> None:
        """Continue from a state that `state_dict` returned.

        Raises:
            StateError: the state belongs to another plan.
        """
        self._own_sampler().load(parse_state(state, self._plan), origin=0)

    def _own_sampler(self) -> MixtureSampler:
        assert self._sampler is not None, "only the main process asks for the state"
        return self._sampler

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_sampler": None, "_readers": []}  # workers read, they do not decide
