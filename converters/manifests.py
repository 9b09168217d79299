"""stream.json out of what was counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from converters.corpus import Corpus, Making, Options
from converters.documents import EXCLUDED
from converters.sources import SourceFile
from converters.tasks.cut import Samples
from converters.tasks.duplicates import DUPLICATE
from converters.tasks.encode import REJECTED
from converters.tasks.packing import Sequenced
from converters.tasks.parts import Part
from mixstream.streams.manifest import HELDOUT, Conversion, Source, StreamManifest, Subsample
from mixstream.streams.writer import TOKENS


class _Counts(dict[str, Counter[str]]):
    def __missing__(self, stream: str) -> Counter[str]:
        return Counter()


def counts_of(parts: Iterable[Part]) -> Mapping[str, Counter[str]]:
    """Return the documents in no stream, by stream and why; under "" those of all streams, and of none, together."""
    counts = _Counts({"": Counter()})
    for part in parts:
        for stream, own in part.counts.items():
            counts[""].update(own)
            if stream:
                counts.setdefault(stream, Counter()).update(own)
    return counts


def sources_of_streams(
    corpus: Corpus, making: Making, files: Iterable[SourceFile], parts: Iterable[Part]
) -> Mapping[str, Sequence[Source]]:
    """Return the sources that each stream has documents of, be they left out: all, were there only one stream.

    Many files and many streams would else make files larger than the streams.

    Args:
        corpus: theirs.
        making: has the sources of all its files.
        files: that of each part.
        parts: as they were encoded.
    """
    if corpus.stream is not None:
        return {corpus.stream: making.sources}
    sources = dict(zip((file.name for file in corpus.files), making.sources, strict=True))
    found: dict[str, dict[str, Source]] = {}
    for file, part in zip(files, parts, strict=True):
        for stream in {run.stream for run in part.runs} | set(part.counts):
            found.setdefault(stream, {})[file.name] = sources[file.name]
    return {stream: tuple(own.values()) for stream, own in found.items()}


@dataclass(frozen=True)
class Shared:
    """What all manifests of a conversion have in common.

    Attributes:
        corpus, options: what was converted, and how.
        samples: what samples are.
        making: all that decides the content.
        sources: of each stream.
        streams: names of all streams that are made.
        left_out: documents of the corpus that are in none of them, by why.
    """

    corpus: Corpus
    options: Options
    samples: Samples
    making: Making
    sources: Mapping[str, Sequence[Source]]
    streams: Sequence[str]
    left_out: Mapping[str, int]


def manifest_of(
    name: str,
    split: str,
    found: Mapping[tuple[str, str], Sequenced],
    shared: Shared,
    counts: Mapping[str, int],
    losses: tuple[int, int],
) -> StreamManifest:
    """Return the stream.json of one split.

    Args:
        name, split: of which.
        found: the documents of every stream and split.
        shared: what all manifests have in common.
        counts: documents of the stream that are in none of its splits, by why.
        losses: tokens that samples of a document each cut off, and that they are filled up with.
    """
    samples, options, making = shared.samples, shared.options, shared.making
    sequenced, heldout = found[name, split], found.get((name, HELDOUT))
    language, _, domain = name.partition(".")
    num_samples = samples.count(sequenced)
    num_tokens = num_samples * samples.sequence_length
    is_packed = samples.layout == "packed"
    truncated, padding = losses
    return StreamManifest.model_validate(
        {
            "name": name,
            "language": language,
            "domain": domain,
            "split": split,
            "layout": samples.layout,
            "num_samples": num_samples,
            "num_tokens": num_tokens,
            "num_documents": sequenced.total_documents,
            "heldout_documents": heldout.total_documents if heldout else 0,
            "excluded_documents": counts.get(EXCLUDED, 0),
            "duplicate_documents": counts.get(DUPLICATE, 0) if options.deduplicate else None,
            "rejected_documents": counts.get(REJECTED, 0),
            "num_bytes": sequenced.total_bytes,
            "remainder_tokens": sequenced.total_tokens - num_tokens if is_packed else 0,
            "padding_tokens": None if is_packed else padding,
            "truncated_tokens": None if is_packed else truncated,
            "pad_token_id": None if is_packed else samples.pad_token_id,
            "sequence_length": samples.sequence_length,
            "token_column": TOKENS,
            "columns": samples.keep,
            "dtype": samples.dtype,
            "tokenizer": options.loaded.info,
            "text_field": shared.corpus.fields.text,
            "id_field": shared.corpus.fields.id,
            "holdout": options.holdout,
            "subsample": Subsample(share=options.subsample, seed=options.seed) if options.subsample else None,
            "sources": shared.sources[name],
            "conversion": Conversion(
                fingerprint=making.fingerprint,
                files=shared.corpus.files_digest,
                streams=tuple(shared.streams),
                left_out=dict(shared.left_out),
            ),
        }
    )
