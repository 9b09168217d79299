"""Draws to batches of tensors: a map-style dataset that reads a batch, or several, in one call.

Composer asks it for its state (`state_dict(num_samples, from_beginning)`) and gives that back at a resume
(`load_state_dict`), which switches off Composer's replay of past batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset

from mixstream.errors import MixtureError
from mixstream.loader.batches import Draws
from mixstream.loader.buffers import Buffers
from mixstream.loader.documents import IGNORED, document_columns, padding_of
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
        labels: ``labels``, a copy of ``input_ids``, but -100 where a row is padding.
        documents: ``document_ids`` and ``position_ids``, which begin anew at every document.
    """

    labels: bool = True
    documents: bool = False


class MixtureDataset(Dataset[Batch]):
    """The plan's samples, read by `Draws` of whole batches."""

    def __init__(
        self, plan: Plan, streams: Sequence[Stream], store: ShardStore, sampler: MixtureSampler, columns: Columns
    ) -> None:
        """Read `streams`, in the plan's order, through `store`; `sampler` knows the state.

        Raises:
            MixtureError: document boundaries of streams whose tokenizer is unknown, or parts of samples that are
                padded.
        """
        padded = [stream.name for stream in streams if stream.layout == "documents"]
        if padded and plan.sequence_length != plan.stored_sequence_length:
            raise MixtureError(
                f"sequence_length={plan.sequence_length}: samples of {', '.join(padded[:3])} are a document and its "
                f"padding each, and are read whole, {plan.stored_sequence_length} tokens; leave it out, or convert "
                f"them packed"
            )
        if columns.documents and plan.tokenizer is None:
            raise MixtureError(
                "documents=True: the streams do not say which token ends a document; give them a stream.json that "
                "names their tokenizer and its eod_token_id, or leave it out"
            )
        self._plan = plan
        self._columns = columns
        self._padded = np.array([stream.layout == "documents" for stream in streams]) if padded else None
        vocab_size = plan.tokenizer.vocab_size if plan.tokenizer else None
        self._reader = TokenReader(streams, store, plan.sequence_length, vocab_size)
        self._buffers = Buffers()
        self._sampler = sampler

    def __len__(self) -> int:
        return self._plan.num_batches * self._plan.batch_size

    def read(self, draws: Draws, pinned: bool = False) -> list[Batch]:
        """Return batches of n rows each, from draws (batches, n); several threads may at once.

        Each has input_ids, labels, document_ids, position_ids (n, sequence), as asked for; stream, sample, repeat (n,).
        """
        num_batches, rows = draws.stream.shape
        shape = 2 if self._columns.labels else 1, num_batches, rows, self._plan.sequence_length
        # Page-locked memory is torch's to keep: only its own tensors tell it that a copy to a GPU still reads them.
        pages = torch.empty(shape, dtype=torch.int64, pin_memory=True) if pinned else None
        tokens = self._buffers.get(shape) if pages is None else pages.numpy()
        flat = tokens.reshape(shape[0], num_batches * rows, -1)
        self._reader.read(draws.stream.reshape(-1), draws.sample.reshape(-1), *flat)
        padded = None if self._padded is None else self._padded[draws.stream]
        if padded is not None and self._columns.labels:
            own = np.flatnonzero(padded)
            flat[1][own] = np.where(padding_of(flat[0][own], self._eod_token_id), IGNORED, flat[0][own])
        batches = []
        for number in range(num_batches):
            copies = (
                [torch.from_numpy(copy[number]) for copy in tokens] if pages is None else pages[:, number].unbind(0)
            )
            batch = dict(zip(("input_ids", "labels"), copies, strict=False))
            batch["stream"] = torch.from_numpy(draws.stream[number])
            batch["sample"] = torch.from_numpy(draws.sample[number])
            batch["repeat"] = torch.from_numpy(draws.repeat[number])
            batches.append(batch)
            if self._columns.documents:
                rows_padded = None if padded is None else torch.from_numpy(padded[number])
                batch |= document_columns(batch["input_ids"], self._eod_token_id, rows_padded)
        return batches

    @property
    def _eod_token_id(self) -> int:
        assert self._plan.tokenizer is not None, "checked above, and padded streams have a stream.json"
        return self._plan.tokenizer.eod_token_id

    @property
    def waited_seconds(self) -> float:
        """Seconds that `read` waited for shards."""
        return self._reader.waited_seconds

    def warm(self, parts: Sequence[Draws]) -> float:
        """Open the shards of draws and bring their rows into memory for a `read` to come; return seconds a row."""
        return self._reader.warm(*_joined(parts))

    def is_open(self, parts: Sequence[Draws]) -> bool:
        """Return whether all shards of draws are open."""
        return self._reader.is_open(*_joined(parts))

    def state_dict(self, num_samples: int, from_beginning: bool) -> str:
        """Return the state after `num_samples` trained samples of this run, for Composer.

        Composer counts what is trained, the loader what it handed out: within a batch that is one more.
        """
        sampler = self._sampler
        within = sampler.trained_within(num_samples)
        return dump_state(sampler.state(sampler.consumed - 1 if within else None), self._plan)

    def load_state_dict(self, state: str) -> None:
        """Continue from a state that `state_dict` returned.

        Raises:
            StateError: the state belongs to another plan.
        """
        loaded = parse_state(state, self._plan)
        self._sampler.load(loaded, samples_before=loaded.samples)


def _joined(parts: Sequence[Draws]) -> tuple[Int64, Int64]:
    """Return the streams and samples of draws, (n,) each."""
    return (
        np.concatenate([part.stream.reshape(-1) for part in parts]),
        np.concatenate([part.sample.reshape(-1) for part in parts]),
    )
