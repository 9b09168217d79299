"""A byte-level BPE for many languages, trained on a sample in which the small ones count for more than their size.

1. Sizes: the bytes of every language's documents that are not held out, in one reading.
2. Sample: of language l as many bytes as ``size_l ** temperature`` is of their sum, but no more than there are; what
   a language cannot give the others do. A document is in it by the hash of its id, whatever the order of files.
3. Training, in a second reading that passes texts on as they come.

Source of the exponent: Conneau et al. 2020 (arXiv 1911.02116), section 3.1, there 0.3.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from converters.documents import Document, is_held_out
from converters.tokens.chunks import ALL_SCRIPTS
from mixstream.errors import CorpusError, TokenizerError

EOD_TOKEN, PAD_TOKEN = "<|endoftext|>", "<|pad|>"

Read = Callable[[], Iterable[Document]]


@dataclass(frozen=True)
class Training:
    """How a tokenizer is trained.

    Attributes:
        vocab_size: tokens, with every byte and the special ones.
        temperature: exponent of language sizes: 1 as they are, 0 all alike.
        sample_bytes: of text to train on, at most.
        seed: of the choice of documents.
        holdout: share of documents that are never trained on; that of `convert`.
    """

    vocab_size: int = 32_000
    temperature: float = 0.3
    sample_bytes: int = 100_000_000
    seed: int = 17
    holdout: float = 0.02


@dataclass(frozen=True)
class Trained:
    """A new tokenizer.

    Attributes:
        json: its tokenizer.json.
        size_bytes: by language, what there is to train on.
        sample_bytes: by language, what was trained on.
    """

    json: str
    size_bytes: Mapping[str, int]
    sample_bytes: Mapping[str, int]


def language_of(document: Document) -> str:
    """Return the language of a document's stream."""
    return document.stream.partition(".")[0]


def allocate(sizes: Mapping[str, int], temperature: float, total: float) -> dict[str, float]:
    """Return how much of each language is taken: ``min(size, c * size ** temperature)`` with c so that it adds up.

    Args:
        sizes: by language, at least 1.
        temperature: exponent.
        total: what it adds up to, unless there is less.

    Returns:
        By language, in the unit of sizes.
    """
    taken: dict[str, float] = {}
    left = float(total)
    # Whose size is the smallest multiple of its weight is full first.
    waiting = sorted(sizes, key=lambda name: (sizes[name] ** (1 - temperature), name))
    weight = sum(sizes[name] ** temperature for name in waiting)
    for name in waiting:
        own = sizes[name] ** temperature
        taken[name] = min(float(sizes[name]), left * own / weight)
        left -= taken[name]
        weight = max(weight - own, 1e-300)
    return taken


def is_sampled(document_id: str, share: float, seed: int) -> bool:
    """Return whether a document is in the sample that takes a share of its language."""
    salt = seed.to_bytes(16, "little")
    encoded = document_id.encode("utf-8", "replace")
    digest = hashlib.blake2b(encoded, digest_size=8, person=b"tokenizer", salt=salt).digest()
    return int.from_bytes(digest, "little") < share * 2**64


def train(read: Read, training: Training) -> Trained:
    """Train a byte-level BPE; the same documents, in whatever order, give the same tokenizer.json.

    Args:
        read: starts a reading of all documents; called twice.
        training: how.

    Raises:
        CorpusError: there is nothing to train on.
        TokenizerError: the sample has too few pairs to make a vocabulary of that size.
    """
    sizes: Counter[str] = Counter()
    for document in _trainable(read, training):
        sizes[language_of(document)] += len(document.content)
    if not sizes:
        raise CorpusError(f"no document to train on: all there are, if any, are held out ({training.holdout:g})")
    amounts = allocate(sizes, training.temperature, training.sample_bytes)
    shares = {language: amounts[language] / size for language, size in sizes.items()}
    sampled: Counter[str] = Counter()

    def texts() -> Iterator[str]:
        for document in _trainable(read, training):
            language = language_of(document)
            if is_sampled(document.id, shares.get(language, 0.0), training.seed):
                sampled[language] += len(document.content)
                yield document.text

    tokenizer = _trained(texts(), training.vocab_size)
    made = tokenizer.get_vocab_size()
    if made < training.vocab_size:
        raise TokenizerError(
            f"{sum(sampled.values()):,} bytes of text make {made:,} tokens, --vocab-size asks for "
            f"{training.vocab_size:,}; give more text (--sample-bytes), or ask for at most {made:,}"
        )
    return Trained(json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False, indent=1) + "\n", sizes, sampled)


def _trainable(read: Read, training: Training) -> Iterator[Document]:
    return (document for document in read() if not is_held_out(document.id, training.holdout))


def _trained(texts: Iterator[str], vocab_size: int) -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(ALL_SCRIPTS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[EOD_TOKEN, PAD_TOKEN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.encode_special_tokens = True
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
