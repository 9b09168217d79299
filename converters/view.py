"""Proxy views: a share of every stream's documents, cut out of streams that are there, without their corpus.

Zhou et al. 2026 (Repetition Mismatch, arXiv 2606.07597): a proxy run of D_p tokens that is to tell of a run of D_t
tokens must repeat every source as often as that one will, and so have D_p / D_t of its unique documents:

    U_i^proxy = U_i D_p / D_t      so that      r_i^proxy = r_i^target      for all proportions.

The documents are those that ``mixstream convert --subsample`` would take, and so are the bytes of the shards and of
documents.parquet; see `converters.tasks.choosing` for what is lost at the end of a packed stream.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from converters.corpus import digest_of, library_versions
from converters.refusals import kept_views, source_of, view_there
from converters.tasks.choosing import By, Extent, ExtentTask, Rule, ViewSource, extent_of, least_share
from converters.tasks.encode import cannot_write
from converters.tasks.executors import executor_of, run_all
from converters.tasks.viewing import ViewTask, view_of, write_view
from converters.work import work_folder
from mixstream.errors import MixtureError, StreamError
from mixstream.streams.catalog import Catalog
from mixstream.streams.manifest import StreamManifest
from mixstream.streams.placing import put_in_place

WORK = "view"  # the name of the work folder: one process at a time cuts views into a folder
MAX_SEED = 1 << 63
_NAMED = 5  # streams in a message


@dataclass(frozen=True)
class ProxyView:
    """The views of the streams of a catalog.

    Attributes:
        manifests: {stream: stream.json} of the view.
        sources: {stream: samples} of what it was cut out of.
        kept: those that were there already.
    """

    manifests: Mapping[str, StreamManifest]
    sources: Mapping[str, int]
    kept: frozenset[str] = field(default_factory=frozenset)


def share_of(tokens: float, target_tokens: float) -> float:
    """Return D_p / D_t, the share of every source that a proxy run of D_p `tokens` is to have.

    Raises:
        MixtureError: they are no numbers above 0, or the proxy's are more than the target's.
    """
    if not (0 < tokens <= target_tokens < math.inf):
        raise MixtureError(
            f"a proxy of {tokens:g} tokens for a target of {target_tokens:g}; expected more than none, and at most as "
            f"many as the target's"
        )
    return tokens / target_tokens


def proxy_view(
    streams: str | Path,
    out: Path,
    share: float,
    seed: int,
    *,
    min_samples: int = 1,
    streams_named: Iterable[str] | None = None,
    by: By = "document",
    overwrite: bool = False,
    workers: int = 0,
    on_done: Callable[[int, int], None] = lambda done, total: None,
) -> ProxyView:
    """Cut a view out of every stream of a catalog: each is there whole or not at all, held-out split included.

    The bytes depend on the streams, the share and the seed alone. A view of a smaller share with the same seed lies
    within one of a larger share. What a run that was killed had put in place is not made again.

    Args:
        streams: a folder of streams, or one, or the URL of one.
        out: the folder of views.
        share: of the documents that are not held out, in (0, 1].
        seed: of the choice.
        min_samples: of each view, at least 1; one of fewer is refused, before anything is written.
        streams_named: names of those to cut; None: all.
        by: choose documents; or samples, of streams whose documents nobody wrote down.
        overwrite: replace other streams of these names.
        workers: processes, a stream each at a time; 0: this one.
        on_done: is told how many views are in their places, and of how many, as often as that changes.

    Raises:
        MixtureError: a share, seed or number of samples that cannot be.
        StreamError: a stream has no documents or no stream.json, is such a view itself that no view of it would be one
            of the whole, or too small; or `out` holds other streams, or cannot be written.
        ShardError: a stream is damaged.
    """
    rule = _checked(share, seed, by, min_samples)
    catalog = Catalog.open(streams)
    names = catalog.names if streams_named is None else tuple(sorted(set(streams_named)))
    if not names:
        raise StreamError(f"{catalog.root}: no stream was named; name one, or none for all")
    sources = {name: source_of(catalog[name], rule) for name in names}
    key = digest_of([[view_of(sources[name], rule).model_dump() for name in names], library_versions()])
    with work_folder(out, WORK, key) as work, executor_of(workers) as executor:
        try:
            kept = kept_views(out, sources, rule, overwrite)
            left = [name for name in names if name not in kept]
            placed = len(kept)
            on_done(placed, len(names))
            extents = run_all(executor, extent_of, [ExtentTask(sources[name], rule) for name in left])
            _check_sizes({name: sources[name] for name in left}, extents, rule, min_samples)
            tasks = [
                ViewTask(sources[name], rule, extent, str(work / "made" / name))
                for name, extent in zip(left, extents, strict=True)
            ]

            def place(task: ViewTask, _: StreamManifest) -> None:
                nonlocal placed
                name = task.source.stream.name
                view_there(out / name, view_of(task.source, rule), overwrite)  # another process may have put one there
                put_in_place(Path(task.directory), out / name)
                placed += 1
                on_done(placed, len(names))

            made = dict(zip(left, run_all(executor, write_view, tasks, place), strict=True))
        except OSError as problem:
            raise cannot_write(out, problem) from None
    sizes = {name: sources[name].stream.num_samples for name in names}
    return ProxyView({name: made[name] if name in made else kept[name] for name in names}, sizes, frozenset(kept))


def _checked(share: float, seed: int, by: By, min_samples: int) -> Rule:
    if not 0 < share <= 1:
        raise MixtureError(f"a view of share {share!r}; expected a number above 0, and at most 1")
    if not 0 <= seed < MAX_SEED:
        raise MixtureError(f"a view of seed {seed}; expected a whole number from 0, below 2^63")
    if min_samples < 1:
        raise MixtureError(f"views of at least {min_samples} samples; expected at least 1")
    if by not in ("document", "sample"):
        raise MixtureError(f"a view by {by!r}; expected 'document' or 'sample'")
    return Rule(float(share), seed, by)


def _check_sizes(sources: Mapping[str, ViewSource], extents: Sequence[Extent], rule: Rule, min_samples: int) -> None:
    """Check that all views are large enough.

    Raises:
        StreamError: with the sizes of those that are not, and the shares that would do.
    """
    small = {
        name: extent.samples for name, extent in zip(sources, extents, strict=True) if extent.samples < min_samples
    }
    told = []
    for name, samples in list(small.items())[:_NAMED]:
        least = least_share(sources[name], rule, min_samples)
        remedy = "not even the whole has them" if least is None else f"a share of {least} has them"
        told.append(f"{name} keeps {samples:,} of {sources[name].stream.num_samples:,} samples ({remedy})")
    if told:
        more = f" and {len(small) - _NAMED} more" if len(small) > _NAMED else ""
        raise StreamError(
            f"a view of share {rule.share:g}: {'; '.join(told)}{more}; expected at least {min_samples:,} of each "
            f"(--min-samples): take a larger share, or leave these out (--streams)"
        )
