"""The exposure ledger of a run: how often each shard was read, in which repeat, and at which batches.

It counts the draws of global batches as they are consumed, all ranks' alike, which every rank knows: nothing is sent,
nothing depends on ranks or workers, and what was decided ahead is not counted.
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Any

import numpy as np

from mixstream.errors import StateError
from mixstream.formats import write_whole
from mixstream.loader.batches import Draws
from mixstream.loader.dataloader import MixtureLoader
from mixstream.loader.planned import samples_of
from mixstream.mixture.exposure import (
    ExposureNote,
    Rows,
    add_rows,
    count_draws,
    decode,
    encode,
    joined,
    rows_of,
    table_of,
)

COUNTED_ROWS = 1 << 15  # draws that are counted in one call


class ExposureLedger:
    """Counts what a `MixtureLoader` hands out, by stream, shard and repeat.

        ledger = ExposureLedger(loader)
        for batch in loader: ...
        ledger.save(Path("exposure.parquet"))

    One rank is enough: it counts what all of them read. Its state belongs to the loader's of the same batch: save
    and load both, or `skip` what was read before.
    """

    def __init__(self, loader: MixtureLoader) -> None:
        """Begin to count where `loader` is."""
        streams = loader.streams
        sizes = [samples_of(loader.plan, stream) for stream in streams]
        self._loader = loader
        self._streams = [(stream.name, stream.index.files) for stream in streams]
        self._first_rows = np.cumsum([0, *(int(own.sum()) for own in sizes)])  # (K + 1,) over all streams
        self._shard_ends = np.cumsum(np.concatenate(sizes))  # (S,) likewise
        self._past: Any = None  # table of streams and batch sizes that are no more
        self._counted: list[Rows] = []  # the earlier ones first
        self._waiting: list[tuple[int, Draws]] = []
        self._told: tuple[int, bytes] | None = None
        self._samples = self._uncounted = 0
        self.skip()
        loader.watch(self._see)

    @property
    def samples(self) -> int:
        """Samples that the run has read, as far as the ledger knows: to compare with the loader's."""
        return self._samples

    def skip(self) -> None:
        """Begin to count where the loader is; what it has read before stays uncounted, and the file says so."""
        self._begin(Rows.none(), None, self._loader.samples, self._loader.samples)

    def content(self, samples: int | None = None) -> bytes:
        """Return the content of an exposure.parquet.

        Args:
            samples: of the run at which it is to end; None, or the loader's, or a batch less: where a trainer has not
                come to the end of the batch that it was handed last.

        Raises:
            StateError: the ledger does not know what was read up to there.
        """
        samples = self._loader.samples if samples is None else samples
        size = self._loader.plan.batch_size
        after = (self._samples - samples) // size
        if self._samples - samples not in (0, size) or after > len(self._waiting):
            raise self._lost(samples)
        if self._told is None or self._told[0] != samples:
            rows = add_rows(*self._counted, self._count(self._waiting[: len(self._waiting) - after]))
            note = ExposureNote(
                batch=-(-samples // size),
                batch_size=size,
                sequence_length=self._loader.plan.sequence_length,
                samples=samples,
                uncounted=self._uncounted,
            )
            self._told = samples, encode(joined(self._past, table_of(rows, self._streams, size)), note)
        return self._told[1]

    def save(self, path: Path) -> None:
        """Write exposure.parquet, whole: what was consumed up to now.

        Raises:
            StateError: the loader was given a state, and the ledger was not.
            FormatError: it cannot be written.
        """
        write_whole(path, self.content())

    def state_dict(self, samples: int | None = None) -> str:
        """Return what `content` does as a string, to lay beside the loader's state."""
        return base64.b64encode(self.content(samples)).decode()

    def load_state_dict(self, state: str) -> None:
        """Go on from a state, in a loader that goes on from its own; the plan may have been changed (migrate).

        Raises:
            StateError: it is no such state, or of other streams.
        """
        try:
            content = base64.b64decode(state, validate=True)
        except (TypeError, ValueError, binascii.Error):
            raise StateError("not a state of an exposure ledger; load one that its state_dict() returned") from None
        self.load(content, "the exposure ledger's state")

    def load(self, content: bytes, where: str) -> None:
        """Go on from the content of an exposure.parquet; `where` it is from, for messages.

        Raises:
            FormatError: it is damaged, or no exposure ledger.
            StateError: it is of other streams.
        """
        table, note = decode(content, where)
        length = self._loader.plan.sequence_length
        if note.sequence_length != length:
            raise StateError(f"{where}: counts samples of {note.sequence_length} tokens, the plan's have {length}")
        rows, past = rows_of(table, self._streams, self._loader.plan.batch_size)
        self._begin(rows, past, note.samples, note.uncounted)

    def _begin(self, rows: Rows, past: Any, samples: int, uncounted: int) -> None:
        self._counted, self._past, self._waiting, self._told = [rows], past, [], None
        self._samples, self._uncounted = samples, uncounted

    def _see(self, batch: int, draws: Draws) -> None:
        """Note a batch; count those before it, where there are enough of them."""
        if self._loader.samples != self._samples:
            raise self._lost(self._loader.samples)
        if len(self._waiting) * len(draws.stream) >= COUNTED_ROWS:
            self._counted.append(self._count(self._waiting))
            self._waiting = []
            if sum(map(len, self._counted[1:])) > len(self._counted[0]):  # so that a row is added up seldom
                self._counted = [add_rows(*self._counted)]
        self._waiting.append((batch, draws))
        self._samples += len(draws.stream)

    def _count(self, batches: list[tuple[int, Draws]]) -> Rows:
        if not batches:
            return Rows.none()
        stream, sample, repeat = (np.concatenate(column) for column in zip(*(own for _, own in batches), strict=True))
        numbers = np.repeat([number for number, _ in batches], len(batches[0][1].stream))
        shard = np.searchsorted(self._shard_ends, self._first_rows[stream] + sample, side="right")
        return count_draws(shard, repeat, numbers)

    def _lost(self, samples: int) -> StateError:
        return StateError(
            f"the exposure ledger has counted {self._samples:,} samples, the run is at {samples:,}: load the ledger's "
            f"state of the same batch too (load_state_dict), or leave out what was read before (skip)"
        )
