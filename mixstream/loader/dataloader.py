"""MixtureLoader: a torch DataLoader that follows a plan, exactly, and new weights at once."""

from __future__ import annotations

import os
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from mixstream.errors import MixtureError, PlanSpentError, StateError
from mixstream.loader.ahead import ReadAhead
from mixstream.loader.batches import Draws, GlobalOrder
from mixstream.loader.dataset import Batch, Columns, MixtureDataset
from mixstream.loader.foresight import Forecaster, lanes_read
from mixstream.loader.lookout import Lookout
from mixstream.loader.migrate import migrate_state
from mixstream.loader.order import key_of
from mixstream.loader.planned import open_planned, samples_of
from mixstream.loader.sampler import STALE, MixtureSampler
from mixstream.loader.state import dump_state, parse_state
from mixstream.mixture.build import whole_number
from mixstream.mixture.ledger import Ledger
from mixstream.mixture.plan import Plan
from mixstream.mixture.simulate import working_set_bytes
from mixstream.streams.cache.limit import limit_bytes
from mixstream.streams.cache.traffic import Traffic
from mixstream.streams.catalog import Stream
from mixstream.streams.store import ShardStore

WEIGHT_LAG = 8
CHUNK_ROWS = 32  # read in one call, where batches are small


class MixtureLoader(DataLoader[Batch]):
    """Yields a rank's part of every global batch of a plan, in order.

    A batch is a dict of int64 tensors: ``input_ids`` and ``labels`` (rows, sequence), equal, since causal
    models shift labels themselves, but for the padding of streams of a document a sample, whose labels are
    -100; ``stream`` (rows,), which indexes ``loader.plan.streams``; ``sample``
    (rows,), the sample in the stream, a row of it where it is read at its stored length; ``repeat`` (rows,),
    from 0. The ranks' parts, one after the other, are the global batch; it depends on the plan and on the
    weights set, never on ranks or workers (M4).

    The loader goes on from where it is: a second `for` after a `break` reads the next batch. After the
    plan's last batch a further iteration raises `PlanSpentError`.

    Trainers that would deal batches to ranks themselves leave it as it is: its sampler is a `DistributedSampler`, and
    it says to accelerate that it is prepared and has a state, which accelerate then saves and loads.
    """

    plan: Plan
    _is_accelerate_prepared = True
    use_stateful_dataloader = True

    def __init__(
        self,
        plan: Plan,
        rank: int | None = None,
        world_size: int | None = None,
        num_workers: int = 0,
        cache_dir: str | Path | None = None,
        cache_limit: int | str | None = None,
        weight_lag: int = WEIGHT_LAG,
        verify_hashes: bool = False,
        pin_memory: bool = False,
        labels: bool = True,
        documents: bool = False,
    ) -> None:
        """Open the plan's streams.

        Args:
            plan: what to read.
            rank, world_size: of this process; None: torch.distributed's, or else the launcher's
                environment, or else 0 of 1.
            num_workers: reading threads (no processes: nothing is sent, copied or started); 0 reads in the calling one,
                with a thread that only opens shards and brings rows into memory, which is fastest where the disk is.
            cache_dir: folder for the raw files of shards that are compressed or lie in an object store, on a disk of
                this machine, kept for the next time; processes and runs may share it. None: such streams are refused.
            cache_limit: bytes that the folder may hold, or a text such as ``"200 GB"``; what is needed last goes first.
                None: as many as the disk.
            weight_lag: batches between `set_weights` and the batch at which they act, and so the most
                that workers may read ahead; 0 reads nothing ahead.
            verify_hashes: compare every shard with the hash that index.json notes, when it is first opened.
            pin_memory: put batches into page-locked memory, from which they are copied to a GPU while it works;
                without a GPU it does nothing.
            labels: whether batches have ``labels``; without, they are read in about half the time.
            documents: whether batches have ``document_ids`` and ``position_ids``, both (rows, sequence), for attention
                within documents.

        Raises:
            StreamError: a stream that is gone or has changed since the plan was made.
            ShardError: a shard that is missing or of another size.
            RemoteError: an object store that refuses, or does not answer for long.
            CacheError: a cache limit that is too small for the plan, with the smallest that works.
            MixtureError: a batch that the ranks cannot share, or workers that read beyond `weight_lag`.
        """
        num_workers = whole_number("num_workers", num_workers, least=0)
        weight_lag = whole_number("weight_lag", weight_lag, least=0)
        if weight_lag < num_workers:
            raise MixtureError(
                f"num_workers={num_workers} read at least {num_workers} batches ahead, but weights act after "
                f"weight_lag={weight_lag}; choose weight_lag of at least {num_workers} or fewer workers"
            )
        self._store = ShardStore(cache_dir, verify_hashes, limit_bytes(cache_limit))
        streams = open_planned(plan)
        is_cached = sum(self._store.check(stream) for stream in streams) > 0  # every one is checked
        self._shard_samples = [samples_of(plan, stream) for stream in streams]
        order = GlobalOrder(plan, self._shard_samples, {})
        self._is_given_place = rank is not None or world_size is not None
        rank, self._world_size = _place(rank, world_size)
        self._rank = rank
        self._lanes = lanes_read(plan, rank, self._world_size)
        self._sampler = MixtureSampler(order, rank, self._world_size, weight_lag)
        if is_cached:
            needed = working_set_bytes(plan, {stream.name: stream for stream in streams}, len(self._lanes))
            self._store.reserve(_name_of(plan, self._lanes), needed, f"a plan of {len(streams)} streams")
        self._lookout = Lookout(self._store, streams) if is_cached else None
        self._reading = MixtureDataset(plan, streams, self._store, self._sampler, Columns(labels, documents))
        self._streams = streams
        self._weight_lag = weight_lag
        self._waited = 0.0
        self._is_closed = False
        self._chunk = max(1, min(weight_lag, CHUNK_ROWS * self._world_size // plan.batch_size))
        super().__init__(
            self._reading,
            batch_sampler=self._sampler,
            pin_memory=pin_memory and torch.cuda.is_available(),
        )
        object.__setattr__(self, "sampler", self._sampler)  # which torch sets to one that nothing asks, and then locks
        self.num_workers = num_workers  # threads: torch is to start no processes
        self.plan = plan

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        """Yield this rank's batches from the next one to consume.

        Raises:
            PlanSpentError: every batch of the plan has been read.
            StateError: a later iteration, or a loaded state, has taken this one's place; or the loader was closed.
            ShardError: a shard that is not what index.json says, naming it.
            MixtureError: torch.distributed was begun since, and this process has another place in it.
        """
        if self._is_closed:
            raise StateError("the loader was closed; make another one, and give it the state of this one")
        self._check_place()
        sampler = self._sampler
        if sampler.ended:
            raise PlanSpentError(
                f"all {sampler.consumed} batches of the plan have been read "
                f"({sampler.consumed * self.plan.batch_size * self.plan.sequence_length:,} tokens); build a plan "
                f"with a larger budget_tokens, or load an earlier state"
            )
        sampler.walks += 1
        walk = sampler.walks
        ahead = self._read_by_workers() if self.num_workers else self._read_here()
        for batch in ahead:
            if walk != sampler.walks:
                raise StateError(STALE)
            sampler.consume()
            yield batch
        sampler.ended = True
        if sampler.consumed < self.plan.num_batches:
            warnings.warn(
                f"the run ends after {sampler.consumed} of {self.plan.num_batches} batches: the streams "
                f"that have weight have used up their repeat budgets",
                stacklevel=2,
            )

    def _check_place(self) -> None:
        """Refuse to read another rank's part, where the place was looked up before torch.distributed had begun."""
        made, now = (self._rank, self._world_size), _distributed()
        if now is not None and now != made and not self._is_given_place:
            raise MixtureError(
                f"the loader was made as rank {made[0]} of {made[1]}, but torch.distributed was begun later and calls "
                f"this process rank {now[0]} of {now[1]}; make the loader after that (with Lightning in "
                f"train_dataloader()), or give it rank and world_size"
            )

    def _read_here(self) -> Iterator[Batch]:
        """Yield this rank's batches, read in this process, some in one call where they are small."""
        sampler = self._sampler
        ahead = ReadAhead(self._reading.warm, self._reading.is_open)
        try:
            walk = sampler.start(lambda draws: ahead.add(sampler.part(draws)))
            self._look(begin=True)
            while (draws := sampler.draw(walk, sampler.consumed, self._chunk)) is not None:
                self._look()
                yield from self._reading.read(draws, self.pin_memory)
        finally:
            ahead.close()

    def _read_by_workers(self) -> Iterator[Batch]:
        """Yield this rank's batches, read by threads, as far ahead as weights allow."""
        sampler = self._sampler
        chunk = min(self._chunk, max(1, self._weight_lag // (self.num_workers + 1)))
        threads = ThreadPoolExecutor(self.num_workers, "mixstream-read")
        reading: deque[Future[list[Batch]]] = deque()
        try:
            walk, coming = sampler.start(), sampler.consumed
            self._look(begin=True)
            while True:
                self._look()
                while coming + chunk <= sampler.consumed + self._weight_lag:
                    if (draws := sampler.draw(walk, coming, chunk)) is None:
                        break
                    reading.append(threads.submit(self._reading.read, draws, self.pin_memory))
                    coming += len(draws.stream)
                if not reading:
                    return
                begun = time.perf_counter()
                batches = reading.popleft().result()
                self._waited += time.perf_counter() - begun
                yield from batches
        finally:
            threads.shutdown(cancel_futures=True)

    def set_weights(self, weights: Mapping[str, float], at_batch: int | None = None) -> int:
        """Give the streams new weights; their repeat budgets and the plan's floor hold as before.

        Every rank must make the same call while the same batch is consumed (M6).

        Args:
            weights: {name: weight}, sum 1.
            at_batch: global batch from which they act; None: `weight_lag` batches after those consumed.

        Returns:
            The global batch from which they act; where the run ends before it, they never do.

        Raises:
            WeightsError: not a point of the simplex over the plan's streams.
            StateError: `at_batch` is sooner than `weight_lag` allows, or beyond the run's end.
        """
        at_batch = self._sampler.set_weights(weights, at_batch)
        if self._lookout is not None:
            self._lookout.hurry()
        return at_batch

    def close(self) -> None:
        """End what fetches and looks ahead, and give back what is reserved in the cache; reading is over then."""
        self._is_closed = True
        if self._lookout is not None:
            self._lookout.close()
        self._store.close()

    def traffic(self) -> dict[str, Traffic]:
        """Return what this process has fetched so far, by stream: nothing, where all is read in its place."""
        return self._store.traffic()

    @property
    def waited_seconds(self) -> float:
        """Seconds that batches were waited for: for shards, or with workers for all that they do."""
        return self._waited if self.num_workers else self._reading.waited_seconds

    def _look(self, begin: bool = False) -> None:
        """Let the store know what comes, if it brings shards."""
        if self._lookout is None:
            return
        if begin:
            growth = self._sampler.growth
            forecaster = Forecaster(self.plan, self._shard_samples, growth, self._lanes)
            self._lookout.begin(forecaster, self._sampler)
        else:
            self._lookout.look(self._sampler)

    def watch(self, watcher: Callable[[int, Draws], object]) -> None:
        """Call `watcher` with the number and the draws (B,) of every global batch, as this rank is handed its part."""
        self._sampler.watchers.append(watcher)

    @property
    def samples(self) -> int:
        """Samples that all ranks have consumed, those of streams that are gone included."""
        return self._sampler.samples(self._sampler.consumed)

    @property
    def streams(self) -> Sequence[Stream]:
        """The plan's streams, in its order, opened."""
        return tuple(self._streams)

    def ledger(self) -> Ledger:
        """Return the account of what has been consumed: batches, draws and shares of each stream."""
        return self._sampler.ledger()

    def state_dict(self) -> str:
        """Return what has been consumed, and the weights that are still to act, as one JSON string."""
        return dump_state(self._sampler.state(), self.plan)

    def load_state_dict(self, state: str, migrate: bool = False) -> list[str]:
        """Continue from a state, with any number of ranks and workers.

        Args:
            state: what `state_dict` returned.
            migrate: carry a state of another plan over to this one, every stream where it was: streams may have come,
                gone or grown by shards at their end, batch size, weights and budgets may be others.

        Returns:
            What differs between the plans, a sentence each; nothing, where they are the same.

        Raises:
            StateError: the state belongs to another plan, and that is not wanted, or cannot be carried over.
        """
        differences: list[str] = []
        if migrate:
            loaded, differences = migrate_state(state, self.plan, self._streams)
        if not differences:
            loaded = parse_state(state, self.plan)
        self._sampler.load(loaded, samples_before=0)
        return differences


def _name_of(plan: Plan, lanes: range) -> str:
    """Return a name that the processes of one run have in common that read the same lanes of a plan."""
    run = os.environ.get("TORCHELASTIC_RUN_ID", "") + os.environ.get("MASTER_PORT", "") or os.getpid()
    return f"{key_of(run, plan.root, plan.identity, lanes):016x}"


def _place(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Return this process' rank and the number of ranks."""
    here = _distributed() or (_from_launcher("RANK", 0), _from_launcher("WORLD_SIZE", 1))
    return (
        here[0] if rank is None else whole_number("rank", rank, least=0),
        here[1] if world_size is None else whole_number("world_size", world_size, least=1),
    )


def _distributed() -> tuple[int, int] | None:
    """Return torch.distributed's rank and world size; None before it is begun."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return None


def _from_launcher(name: str, default: int) -> int:
    """Return a number that a launcher has put into the environment."""
    value = os.environ.get(name, "")
    if value and not (value.isdecimal() and value.isascii()):
        raise MixtureError(f"environment variable {name} is {value!r}; expected a whole number, as launchers set it")
    return int(value or default)
