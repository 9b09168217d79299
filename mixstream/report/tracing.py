"""What a person is told of a batch, or of a document: from a run's files and its streams, after the run is gone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from mixstream import metrics
from mixstream.errors import MixtureError, StreamError, nearest
from mixstream.loader.trace import History, draws_of_samples, rows_of_batch
from mixstream.loader.trace.legs import Leg
from mixstream.loader.trace.lines import SortedLines
from mixstream.mixture.build import whole_number
from mixstream.report.series import MetricsLine
from mixstream.report.trace_contents import read_contents
from mixstream.report.traced import BatchShown, DrawShown, DrawsShown, LossShown, PlaceShown, RowShown
from mixstream.streams.catalog import Stream
from mixstream.streams.document_search import MAX_LIKE, DocumentPlace, find_document, like_document
from mixstream.streams.place import all_together
from mixstream.streams.survey import FindDecoder

NEIGHBOURS = 3  # batches before and after, whose losses are told


def show_batch(
    history: History,
    batch: int,
    rank: int | None = None,
    world_size: int | None = None,
    find_decoder: FindDecoder | None = None,
) -> BatchShown:
    """Return what is known of a batch of a run.

    Args:
        history: of the run.
        batch: number of the global batch, from 0.
        rank: whose part of the batch to tell; None: all of it.
        world_size: of how many ranks; None: as many as trained then, as far as the run noted it.
        find_decoder: returns what makes text of tokens, or raises TokenizerError; None: no texts.

    Raises:
        StateError: the run has no such batch.
        MixtureError: a rank that the batch was not dealt to.
        StreamError: a stream that is gone or has changed since.
    """
    leg = history.leg_of(whole_number("batch", batch, least=0))
    part, of = _part(leg, batch, rank, world_size)
    rows = rows_of_batch(leg, batch)[part]
    contents = read_contents(leg, rows, find_decoder)
    last = leg is history.legs[-1]
    return BatchShown(
        run=str(history.path),
        leg=leg.number,
        batch=batch,
        rank=rank,
        world_size=of,
        trained=None if history.trained is None else not last or batch < history.trained,
        losses=_losses(leg, batch),
        missing=contents.missing,
        rows=tuple(
            RowShown(
                row=one.row,
                stream=one.origin.stream,
                shard=one.origin.shard,
                shard_row=one.origin.row,
                part=one.origin.part,
                sample=one.sample,
                repeat=one.origin.repeat,
                seen=one.seen,
                documents=contents.documents.get((one.origin.stream, one.sample)),
                text=contents.texts.get((one.origin.stream, one.sample)),
            )
            for one in rows
        ),
    )


def show_document(history: History, document_id: str, stream: str | None = None) -> DrawsShown:
    """Return at which batches a run read a document.

    Args:
        history: of the run.
        document_id: as documents.parquet has it.
        stream: where to look for it; None: in all.

    Raises:
        StreamError: no stream has such a document, or there is no such stream.
    """
    streams = _streams_of(history)
    looked = {_known(history, stream): streams[_known(history, stream)]} if stream else streams
    missing: dict[str, str] = {}

    def look(one: Stream) -> list[DocumentPlace]:
        try:
            return find_document(one.directory, document_id)
        except StreamError as problem:
            missing[one.name] = str(problem)
            return []

    some = next(iter(looked.values()))
    found = dict(zip(looked, all_together(look, looked.values(), some.directory), strict=True))
    if not any(found.values()):
        like = [
            close
            for name in looked
            if name not in missing
            for close in like_document(looked[name].directory, document_id, MAX_LIKE // len(looked))
        ]
        where = f"stream {stream!r} has no" if stream else f"none of the run's {len(looked)} streams has a"
        without = f" ({len(missing)} could not be looked through: {next(iter(missing.values()))})" if missing else ""
        raise StreamError(
            f"{where} document {document_id!r}{nearest(document_id, like)}{without}; held-out documents are never read"
        )
    places = [
        PlaceShown(
            stream=name, document=one.document, num_tokens=one.num_tokens, samples=_samples(history, streams[name], one)
        )
        for name, own in found.items()
        for one in own
    ]
    return _draws_shown(history, document_id, missing, places)


def show_sample(history: History, stream: str, sample: int) -> DrawsShown:
    """Return at which batches a run read a sample of a stream.

    Raises:
        StreamError: there is no such stream, or sample.
    """
    sizes = {entry.name: entry.num_samples for leg in history.legs for entry in leg.plan.entries}
    if whole_number("sample", sample, least=0) >= sizes[_known(history, stream)]:
        raise StreamError(
            f"stream {stream!r} has {sizes[stream]:,} samples, counted from 0; there is no sample {sample}"
        )
    place = PlaceShown(stream=stream, document=None, num_tokens=None, samples=(sample,))
    return _draws_shown(history, None, {}, [place])


def _draws_shown(
    history: History, document_id: str | None, missing: dict[str, str], places: Sequence[PlaceShown]
) -> DrawsShown:
    wanted: dict[str, set[int]] = defaultdict(set)
    for place in places:
        wanted[place.stream] |= set(place.samples)
    draws = [
        DrawShown(stream=name, **draw._asdict())
        for name, samples in wanted.items()
        for draw in draws_of_samples(history, name, samples)
    ]
    return DrawsShown(
        run=str(history.path),
        id=document_id,
        trained=history.trained,
        missing=missing,
        places=tuple(places),
        draws=tuple(sorted(draws, key=lambda one: (one.leg, one.batch, one.row))),
    )


def _samples(history: History, stream: Stream, place: DocumentPlace) -> tuple[int, ...]:
    """Return the samples, as they are read, that have tokens of a document."""
    length = history.legs[-1].plan.sequence_length
    num_tokens = place.num_tokens if stream.layout == "packed" else min(place.num_tokens, stream.sequence_length)
    stop = min(place.begin + num_tokens, stream.num_tokens)
    return tuple(range(place.begin // length, -(-stop // length))) if place.begin < stop else ()


def _streams_of(history: History) -> dict[str, Stream]:
    """Return the streams of all legs as they are now."""
    return {stream.name: stream for leg in history.legs for stream in leg.streams}


def _known(history: History, stream: str) -> str:
    """Return a stream's name, if one of the run's plans has it."""
    names = [name for leg in history.legs for name in leg.plan.streams]
    if stream not in names:
        raise StreamError(f"{history.path}: has no stream {stream!r}{nearest(stream, names)}")
    return stream


def _part(leg: Leg, batch: int, rank: int | None, world_size: int | None) -> tuple[slice, int | None]:
    """Return the rows of a rank, and of how many ranks it is one."""
    if rank is None:
        if world_size is not None:
            raise MixtureError(f"world_size={world_size} without a rank; give both, or none for the whole batch")
        return slice(None), None
    ranks = leg.ranks_at(batch) if world_size is None else world_size
    if ranks is None:
        raise MixtureError(f"rank={rank}: nobody noted of how many ranks; give the world size too (--world-size)")
    if ranks < 1 or leg.plan.batch_size % ranks or not 0 <= rank < ranks:
        raise MixtureError(
            f"rank={rank} of world_size={ranks}; expected a rank below the world size, from 0, and a world size that "
            f"divides the batch of {leg.plan.batch_size} samples"
        )
    size = leg.plan.batch_size // ranks
    return slice(rank * size, (rank + 1) * size), ranks


def _losses(leg: Leg, batch: int) -> tuple[LossShown, ...]:
    """Return the losses around a batch; a line of metrics.jsonl counts the batch that it tells of."""
    log = SortedLines(leg.metrics)
    first, last = batch + 1 - NEIGHBOURS, batch + 1 + NEIGHBOURS
    found: dict[int, float] = {}
    start = log.count_up_to(lambda one: one["batch"], first - 1)
    while start < log.end and (line := log.parse(start, MetricsLine)).batch <= last:
        loss = line.metrics.get(metrics.TRAIN_LOSS)
        if isinstance(loss, float):
            found[line.batch - 1] = loss
        start = log.after(start)
    return tuple(LossShown(batch=number, loss=loss) for number, loss in sorted(found.items()))
