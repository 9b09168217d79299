"""What a run needs in its cache at a time, and whether the limit is large enough: known before anything is read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from composer.utils import dist

from mixstream.callbacks.heldout import bytes_at_a_time
from mixstream.errors import CacheError
from mixstream.loader.foresight import lanes_read
from mixstream.mixture.plan import Plan
from mixstream.mixture.simulate import working_set_bytes
from mixstream.runs.recipe import RunRecipe
from mixstream.streams.cache.limit import limit_bytes
from mixstream.streams.catalog import Catalog, Stream
from mixstream.streams.store import ShardStore


@dataclass(frozen=True)
class CacheNeeds:
    """Bytes of raw shards that are needed at a time on this node; 0 where nothing comes through the cache.

    Attributes:
        training: the open windows of what is trained on, and the next ones.
        probes: the same of what weights are learnt from.
        heldout: of one read of a held-out split.
    """

    training: int
    probes: int
    heldout: int

    @property
    def total(self) -> int:
        """All of them together: they are read by turns, but none may remove what another has open."""
        return self.training + self.probes + self.heldout


def cache_needs(recipe: RunRecipe, plan: Plan, probe: Plan | None, catalog: Catalog) -> CacheNeeds:
    """Return what a run needs in its cache, after checking that every shard can be opened.

    Args:
        recipe: of the run.
        plan: of what it trains on.
        probe: plan of what it learns weights from, if it does.
        catalog: the streams.

    Raises:
        MixstreamError: a shard is missing, there is no cache folder, or its limit is too small.
    """
    store, heldout = open_store(recipe), list(catalog.heldout() or [])
    of_training, of_heldout = _is_cached(store, catalog), _is_cached(store, heldout)
    needs = CacheNeeds(
        training=_node_bytes(plan, catalog) if of_training else 0,
        probes=_node_bytes(probe, catalog) if of_training and probe else 0,
        heldout=bytes_at_a_time(
            heldout, recipe.training.microbatch_size, recipe.training.heldout_samples, plan.sequence_length
        )
        if of_heldout
        else 0,
    )
    limit = store.cache_limit
    if limit is not None and needs.total > limit:
        raise CacheError(
            f"training.cache_limit is {limit:,} bytes, but the run needs {needs.total:,} at a time: {needs.training:,} "
            f"for what it trains on, {needs.probes:,} for probes, {needs.heldout:,} for held-out splits; give a "
            f"cache_limit of {needs.total:,} bytes or more, or a smaller mixture.window_samples"
        )
    return needs


def open_store(recipe: RunRecipe) -> ShardStore:
    """Return a store as a run's recipe has it; all of a run's stores share the folder and its limit."""
    training = recipe.training
    return ShardStore(training.cache_dir, training.verify_hashes, limit_bytes(training.cache_limit))


def _is_cached(store: ShardStore, streams: Iterable[Stream]) -> bool:
    return sum(store.check(stream) for stream in streams) > 0  # every one is checked


def _node_bytes(plan: Plan, catalog: Catalog) -> int:
    """Return what the processes of this node need together: those that read the same lanes need it once."""
    first, ranks = dist.get_global_rank() - dist.get_local_rank(), dist.get_world_size()
    lanes = {lanes_read(plan, rank, ranks) for rank in range(first, first + dist.get_local_world_size())}
    return sum(working_set_bytes(plan, catalog, len(own)) for own in lanes)
