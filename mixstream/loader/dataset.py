"""Draws to batches of tensors: a map-style dataset that reads a batch, or several, in one call.

Composer asks it for its state (`state_dict(num_samples, from_beginning)`) and gives that back at a resume
(`load_state_dict`), which switches off Composer's replay of past batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from mixstream.errors import MixtureError
from mixstream.loader.batches import Draws
from mixstream.loader.buffers import Buffers
from mixstream.loader.documents import DOCUMENT_COLUMNS, document_columns
from mixstream.loader.reader import TokenReader
from mixstream.loader.sampler import MixtureSampler
from mixstream.loader.state import dump_state, parse_state
from mixstream.mixture.plan import Plan
from mixstream.streams.catalog import Stream
from mixstream.streams.index import Int64
from mixstream.streams.store import ShardStore

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Columns:
    """Which columns a batch has beside ``input_ids``, ``stream``, ``sample`` and ``repeat``.

    Attributes:
        labels: ``labels``, a copy of ``input_ids``.
        documents: ``document_ids`` and ``position_ids``, which begin anew at every document.
    """

    labels: bool = True
    documents: bool = False


class MixtureDataset(Dataset[torch.Tensor]):
    """The plan's samples; an index is a `Draws` of a whole batch."""

    def __init__(
        self, plan: Plan, streams: Sequence[Stream], store: ShardStore, sampler: MixtureSampler, columns: Columns
    ) -> None:
        """Read `streams`, in the plan's order, through `store`; `sampler` knows the state.

        Raises:
            MixtureError: document boundaries of streams whose tokenizer is unknown.
        """
        if columns.documents and plan.tokenizer is None:
            raise MixtureError(
                "documents=True: the streams do not say which token ends a document; give them a stream.json that "
                "names their tokenizer and its eod_token_id, or leave it out"
            )
        self._plan = plan
        self._streams = list(streams)
        self._store = store
        self._columns = columns
        self._reader: TokenReader | None = None
        self._buffers = Buffers()
        self._sampler: MixtureSampler | None = sampler

    def __len__(self) -> int:
        return self._plan.num_batches * self._plan.batch_size

    def __getitems__(self, draws: Draws) -> torch.Tensor:
        """Return what a worker sends of a batch of n rows: (columns, n, sequence), input_ids and documents' columns.

        One tensor, since each costs a file; what the main process knows or can copy is not sent.
        """
        (batch,) = self._read(draws.take(None), copies=1, pinned=False)
        return torch.stack(list(batch.values())) if len(batch) > 1 else batch["input_ids"].unsqueeze(0)

    def finish(self, sent: torch.Tensor, draws: Draws, pinned: bool = False) -> Batch:
        """Return the batch of which a worker sent (columns, n, sequence), with draws (1, n)."""
        batch = dict(zip(("input_ids", *DOCUMENT_COLUMNS), sent, strict=False))
        if self._columns.labels:
            labels = torch.from_numpy(self._buffers.get(tuple(sent.shape[1:]), pinned))
            batch["labels"] = labels.copy_(batch["input_ids"])
        _tell(batch, draws, 0)
        return batch

    def read(self, draws: Draws, pinned: bool = False) -> list[Batch]:
        """Return batches of n rows each, from draws (batches, n), read in this process."""
        batches = self._read(draws, 2 if self._columns.labels else 1, pinned)
        for number, batch in enumerate(batches):
            _tell(batch, draws, number)
        return batches

    def _read(self, draws: Draws, copies: int, pinned: bool) -> list[Batch]:
        """Return the token columns of batches of n rows each, (n, sequence) int64: input_ids, labels, documents'."""
        num_batches, rows = draws.stream.shape
        tokens = self._buffers.get((copies, num_batches, rows, self._plan.sequence_length), pinned)
        flat = tokens.reshape(copies, num_batches * rows, -1)
        self._own_reader().read(draws.stream.reshape(-1), draws.sample.reshape(-1), *flat)
        names = ("input_ids", "labels")[:copies]
        batches = [
            {name: torch.from_numpy(own[number]) for name, own in zip(names, tokens, strict=True)}
            for number in range(num_batches)
        ]
        if self._columns.documents:
            assert self._plan.tokenizer is not None, "checked above"
            for batch in batches:
                batch |= document_columns(batch["input_ids"], self._plan.tokenizer.eod_token_id)
        return batches

    def warm(self, parts: Sequence[Draws]) -> float:
        """Open the shards of draws and bring their rows into memory for a `read` to come; return seconds a row."""
        return self._own_reader().warm(*_joined(parts))

    def is_open(self, parts: Sequence[Draws]) -> bool:
        """Return whether all shards of draws are open."""
        return self._own_reader().is_open(*_joined(parts))

    def state_dict(self, num_samples: int, from_beginning: bool) -> str:
        """Return the state after `num_samples` trained samples of this run, for Composer.

        Composer counts what is trained, the loader what it handed out: within a batch that is one more.
        """
        sampler = self._own_sampler()
        within = sampler.trained_within(num_samples)
        return dump_state(sampler.state(sampler.consumed - 1 if within else None), self._plan)

    def load_state_dict(self, state: str) -> None:
        """Continue from a state that `state_dict` returned.

        Raises:
            StateError: the state belongs to another plan.
        """
        loaded = parse_state(state, self._plan)
        self._own_sampler().load(loaded, samples_before=loaded.samples)

    def _own_reader(self) -> TokenReader:
        if self._reader is None:  # shards are opened in the process that reads
            vocab_size = self._plan.tokenizer.vocab_size if self._plan.tokenizer else None
            self._reader = TokenReader(self._streams, self._store, self._plan.sequence_length, vocab_size)
        return self._reader

    def _own_sampler(self) -> MixtureSampler:
        assert self._sampler is not None, "only the main process asks for the state"
        return self._sampler

    def __getstate__(self) -> dict[str, Any]:
        return {
            **self.__dict__,
            "_sampler": None,
            "_reader": None,
            "_buffers": Buffers(),
        }  # workers read, they do not decide


def _tell(batch: Batch, draws: Draws, number: int) -> None:
    """Add the columns that say where the rows are from: those of one batch of draws (batches, n)."""
    batch["stream"] = torch.from_numpy(draws.stream[number])
    batch["sample"] = torch.from_numpy(draws.sample[number])
    batch["repeat"] = torch.from_numpy(draws.repeat[number])


def _joined(parts: Sequence[Draws]) -> tuple[Int64, Int64]:
    """Return the streams and samples of draws, (n,) each."""
    return (
        np.concatenate([part.stream.reshape(-1) for part in parts]),
        np.concatenate([part.sample.reshape(-1) for part in parts]),
    )
