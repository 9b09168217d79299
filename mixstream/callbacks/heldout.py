"""Held-out loss by stream and by language."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from composer.core import Callback, State
from composer.loggers import Logger
from composer.utils import dist

from mixstream.callbacks.rows import measuring, over_ranks, row_losses
from mixstream.errors import ScoreError
from mixstream.loader.order import key_of
from mixstream.loader.reader import TokenReader
from mixstream.metrics import HELDOUT_BITS, HELDOUT_NATS, of_stream
from mixstream.streams.cache.traffic import Traffic
from mixstream.streams.catalog import Catalog, Stream
from mixstream.streams.store import ShardStore


@dataclass(frozen=True)
class HeldoutLoss:
    """The loss on one held-out split, or on all of a language's.

    Attributes:
        num_tokens: tokens of the rows that it was measured on.
        num_bytes: bytes of text that these tokens stand for; None where the stream does not say.
        nats_per_token: mean loss of a predicted token.
    """

    num_tokens: int
    num_bytes: float | None
    nats_per_token: float

    @property
    def bits_per_byte(self) -> float | None:
        """The loss a byte of text, which compares languages however many tokens they take."""
        if self.num_bytes is None:
            return None
        return self.nats_per_token * self.num_tokens / self.num_bytes / math.log(2)


class Heldout(Callback):
    """Measures the model on the held-out splits, every `interval_batches` and at the end of the run.

    Attributes:
        losses: by stream, as last measured.
    """

    def __init__(
        self,
        catalog: Catalog | None,
        batch_size: int,
        interval_batches: int | None,
        max_samples: int | None,
        sequence_length: int | None = None,
        store: ShardStore | None = None,
    ) -> None:
        """Measure on a catalog of held-out splits.

        Args:
            catalog: opened with ``split="heldout"``; None where there is none.
            batch_size: rows at a time, on each rank.
            interval_batches: None: at the end only.
            max_samples: the first so many samples of each stream; None: all.
            sequence_length: tokens of a sample, a length that divides the stored one; None: as stored.
            store: opens the shards; None: raw ones only.

        Raises:
            CacheError: the store's limit is too small for what is read at a time.
        """
        self._streams = list(catalog) if catalog else []
        self._store = store or ShardStore()
        self._reader = _reader(self._streams, self._store, sequence_length) if self._streams else None
        if sum(self._store.check(stream) for stream in self._streams):
            needed = bytes_at_a_time(self._streams, batch_size, max_samples, sequence_length)
            self._store.reserve(_name_of(self._streams), needed, f"reading {len(self._streams)} held-out splits")
        self._sequence_length = sequence_length
        self._batch_size = batch_size
        self._interval_batches = interval_batches
        self._max_samples = max_samples
        self._logged_at: int | None = None
        self.losses: dict[str, HeldoutLoss] = {}

    def batch_end(self, state: State, logger: Logger) -> None:
        """Measure, if it is time."""
        if self._interval_batches and int(state.timestamp.batch) % self._interval_batches == 0:
            self._measure(state)
            self._log(state, logger)

    def fit_end(self, state: State, logger: Logger) -> None:
        """Measure the trained model, if its last batch was not the time to."""
        is_logged = self._logged_at == int(state.timestamp.batch)
        if not (is_logged and self.losses):
            self._measure(state)
        if not is_logged:
            self._log(state, logger)

    def state_dict(self) -> dict[str, Any]:
        """Return the batch at which losses were last logged."""
        return {"logged_at": self._logged_at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Do not log the same losses again."""
        self._logged_at = state["logged_at"]

    def traffic(self) -> dict[str, Traffic]:
        """Return what this process has moved so far, by stream."""
        return self._store.traffic()

    @property
    def waited_seconds(self) -> float:
        """Seconds that this process waited for shards."""
        return self._reader.waited_seconds if self._reader else 0.0

    def _measure(self, state: State) -> None:
        self.losses = {stream.name: self._loss_of(state, i) for i, stream in enumerate(self._streams)}

    def _log(self, state: State, logger: Logger) -> None:
        metrics = {of_stream(HELDOUT_NATS, name): loss.nats_per_token for name, loss in self.losses.items()}
        for name, loss in self.losses.items():
            if loss.bits_per_byte is not None:
                metrics[of_stream(HELDOUT_BITS, name)] = loss.bits_per_byte
        logger.log_metrics(metrics)
        self._logged_at = int(state.timestamp.batch)

    @torch.no_grad()
    def _loss_of(self, state: State, number: int) -> HeldoutLoss:
        """Return the loss on one stream: rank r measures samples r, r + world size, ...

        Raises:
            ScoreError: it is not a finite number.
        """
        assert self._reader is not None, "there is a stream"
        stream = self._streams[number]
        length = self._sequence_length or stream.sequence_length
        num_samples = stream.num_tokens // length
        end = min(num_samples, self._max_samples or num_samples)
        ranks = dist.get_world_size()
        own = np.arange(dist.get_global_rank(), end, ranks)
        # The ranks of a sharded model pass together: one that has no row left passes with another's, uncounted.
        rows = -(-end // ranks) if state.fsdp_enabled else len(own)
        sums = torch.zeros(2, dtype=torch.float64)
        with measuring(state) as model:
            for start in range(0, rows, self._batch_size):
                counted = own[start : start + self._batch_size]
                tokens = self._reader.tokens(number, counted if len(counted) else np.zeros(1, dtype=own.dtype))
                batch = {"input_ids": tokens, "labels": tokens, "stream": torch.full((len(tokens),), number)}
                losses = row_losses(model, state.device.batch_to_device(batch))[: len(counted)]
                sums += torch.tensor([float(losses.double().sum()), len(losses)], dtype=torch.float64)
        total, count = over_ranks(sums, state).tolist()
        if not math.isfinite(total):
            raise ScoreError(
                f"batch {int(state.timestamp.batch)}: the held-out loss of {stream.name} is {total}; the run diverged, "
                f"begin it anew in another folder with a lower learning_rate"
            )
        num_tokens = int(count) * length
        num_bytes = num_tokens / stream.tokens_per_byte if stream.tokens_per_byte else None
        return HeldoutLoss(num_tokens, num_bytes, total / count)


def bytes_at_a_time(
    streams: Iterable[Stream], batch_size: int, max_samples: int | None, sequence_length: int | None
) -> int:
    """Return the most bytes of raw shards that one read of a held-out split opens, whichever rank makes it.

    Args:
        streams: the splits.
        batch_size, max_samples, sequence_length: as `Heldout` has them.
    """
    span = batch_size * dist.get_world_size()  # samples, one after the other, of which a read takes every nth
    most = 0
    for stream in streams:
        rows = stream.index.shard_samples * (stream.sequence_length // (sequence_length or stream.sequence_length))
        read = int(np.searchsorted(np.cumsum(rows), max_samples or np.inf)) + 1  # shards, from the first
        ends, sizes = np.cumsum(rows[:read]), np.cumsum([0, *stream.index.file_bytes[:read]])
        last = np.searchsorted(ends, ends - 1 + span - 1, side="right")  # shard of the last row, from each one's last
        most = max(most, int((sizes[np.minimum(last + 1, len(ends))] - sizes[:-1]).max()))
    return most


def _name_of(streams: Sequence[Stream]) -> str:
    """Return a name that the processes of one run have in common."""
    run = os.environ.get("TORCHELASTIC_RUN_ID", "") + os.environ.get("MASTER_PORT", "") or os.getpid()
    return f"{key_of('held-out', run, *(f'{stream.directory} {stream.fingerprint}' for stream in streams)):016x}"


def _reader(streams: Sequence[Stream], store: ShardStore, sequence_length: int | None) -> TokenReader:
    tokenizer = streams[0].tokenizer
    return TokenReader(streams, store, sequence_length, tokenizer.vocab_size if tokenizer else None)


def together(losses: Iterable[HeldoutLoss]) -> HeldoutLoss:
    """Return the loss on the text of several streams taken as one."""
    parts = list(losses)
    num_tokens = sum(loss.num_tokens for loss in parts)
    sizes = [loss.num_bytes for loss in parts if loss.num_bytes is not None]
    return HeldoutLoss(
        num_tokens,
        sum(sizes) if len(sizes) == len(parts) else None,
        sum(loss.nats_per_token * loss.num_tokens for loss in parts) / num_tokens,
    )


def by_language(losses: Mapping[str, HeldoutLoss], languages: Mapping[str, str]) -> dict[str, HeldoutLoss]:
    """Return the loss of each language over its streams.

    Args:
        losses: by stream.
        languages: language of each stream.
    """
    return {
        language: together(loss for name, loss in losses.items() if languages[name] == language)
        for language in sorted({languages[name] for name in losses})
    }
