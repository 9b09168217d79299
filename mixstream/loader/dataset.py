"""Draws to batches of tensors: a map-style dataset that reads a batch, or several, in one call.

Composer asks it for its state (`state_dict(num_samples, from_beginning)`) and gives that back at a resume
(`load_state_dict`), which switches off Composer's replay of past batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Dataset

from mixstream.errors import MixtureError
from mixstream.loader.batches import Draws
from mixstream.loader.buffers import Buffers
from mixstream.loader.documents import document_columns
from mixstream.loader.reader import TokenReader
from mixstream.loader.sampler import MixtureSampler
from mixstream.loader.state import dump_state, parse_state
from mixstream.mixture.plan import Plan
from mixstream.streams.catalog import Stream
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


class MixtureDataset(Dataset[Batch]):
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

    def __getitems__(self, draws: Draws) -> Batch:
        """Return a batch of n rows: input_ids, labels (n, sequence); stream, sample, repeat (n,); int64."""
        return self.read(draws.take(None))[0]

    def read(self, draws: Draws, pinned: bool = False) -> list[Batch]:
        """Return batches of n rows each, from draws (batches, n); they share memory that is written no more."""
        num_batches, rows = draws.stream.shape
        copies = 2 if self._columns.labels else 1
        shape = copies, num_batches, rows, self._plan.sequence_length
        # Page-locked memory is torch's to keep, and so are its tensors: of others it would not know that a copy to a
        # GPU still reads them.
        pages = torch.empty(shape, dtype=torch.int64, pin_memory=True) if pinned else None
        tokens = self._buffers.get(shape) if pages is None else pages.numpy()
        flat = tokens.reshape(copies, num_batches * rows, -1)
        self._own_reader().read(draws.stream.reshape(-1), draws.sample.reshape(-1), *flat)
        names = ("input_ids", "labels")[:copies]
        batches = []
        for number in range(num_batches):
            own = tokens[:, number] if pages is None else pages[:, number]
            batch = {name: torch.as_tensor(column) for name, column in zip(names, own, strict=True)}
            batches.append(batch | {name: torch.from_numpy(column[number]) for name, column in draws._asdict().items()})
        if self._columns.documents:
            assert self._plan.tokenizer is not None, "checked above"
            for batch in batches:
                batch |= document_columns(batch["input_ids"], self._plan.tokenizer.eod_token_id)
        return batches

    def warm(self, draws: Draws) -> None:
        """Open the shards of draws and bring their rows into memory, so that `read` need not wait for them."""
        self._own_reader().warm(draws.stream.reshape(-1), draws.sample.reshape(-1))

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
