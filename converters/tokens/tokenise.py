"""Text to tokens: the built-in byte-level tokenizer, or any Hugging Face one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from converters.tokens.chunks import ChunkEncoder, comes_in_chunks, sections
from converters.tokens.locality import locality_of
from converters.tokens.pieces import PIECE_CHARACTERS as BATCH_CHARACTERS
from converters.tokens.pieces import encode_in_pieces
from mixstream.errors import TokenizerError
from mixstream.streams.fingerprints import fingerprint_of, plain
from mixstream.streams.manifest import TokenizerInfo

Tokens = npt.NDArray[Any]

EOD_TOKENS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<eod>", "[EOS]")
PAD_TOKENS = ("<pad>", "[PAD]", "<|pad|>")


class Tokenizer(Protocol):
    """Makes tokens of texts, and texts of tokens.

    Attributes:
        info: what streams note of it.
        pad_token_id: the token that fills a sample up, where the vocabulary has one.
    """

    info: TokenizerInfo
    pad_token_id: int | None

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        """Return the tokens of each text: arrays (tokens,) of some whole-number type.

        No token is added, and none of the text is taken for a special token.
        """
        ...

    def decode(self, tokens: Tokens) -> str:
        """Return the text of tokens."""
        ...


@dataclass(frozen=True)
class TokenizerSpec:
    """A tokenizer as it is sent to other processes, on machines that need not have its file.

    Attributes:
        name: what it was asked for by.
        eod_token: the token that was named as its end-of-document token, if one was.
        json: all of it, as the `tokenizers` library writes it; None for ``byte``.
    """

    name: str
    eod_token: str | None
    json: str | None

    def load(self) -> Tokenizer:
        """Return the tokenizer; the same object each time in one process."""
        return _loaded(self)


def spec_of(name: str, eod_token: str | None = None) -> TokenizerSpec:
    """Return what a tokenizer is, read from its file or the hub once (see `load_tokenizer`).

    Raises:
        TokenizerError: there is no such tokenizer, or its end-of-document token is not known.
    """
    tokenizer = load_tokenizer(name, eod_token)
    return TokenizerSpec(name, eod_token, tokenizer.json if isinstance(tokenizer, HuggingFaceTokenizer) else None)


def use_one_thread() -> None:
    """Have the `tokenizers` library encode in the thread that calls it, here and in processes started from here.

    For workers that are processes, one a core. To be called before the first encoding of the process.
    """
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["RAYON_NUM_THREADS"] = "1"


def dtype_of(info: TokenizerInfo) -> str:
    """Return the smallest type that holds every token of a vocabulary: ``uint16`` or ``uint32``.

    Raises:
        TokenizerError: neither does.
    """
    if info.vocab_size > 1 << 32:
        raise TokenizerError(
            f"tokenizer {info.name!r} has token {info.vocab_size - 1:,}, expected at most {(1 << 32) - 1:,} (uint32); "
            "number its tokens from 0"
        )
    return "uint16" if info.vocab_size <= 1 << 16 else "uint32"


class ByteTokenizer:
    """Every UTF-8 byte is a token; 256 ends a document. Nothing to train, every language can be told."""

    info = TokenizerInfo(name="byte", fingerprint="byte-1", vocab_size=257, eod_token_id=256)
    pad_token_id: int | None = None

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        """Return the bytes of each text, uint8, not to be written to."""
        return [np.frombuffer(text.encode("utf-8"), dtype=np.uint8) for text in texts]

    def decode(self, tokens: Tokens) -> str:
        """Return the text of tokens; the end-of-document token shows as a line break."""
        values = np.where(tokens == self.info.eod_token_id, ord("\n"), tokens)
        return values.astype(np.uint8).tobytes().decode("utf-8", errors="replace")


class HuggingFaceTokenizer:
    """A tokenizer of the `tokenizers` library.

    Attributes:
        json: all of it, but for what only concerns special tokens, padding and truncation.
    """

    def __init__(self, tokenizer: Any, name: str, eod_token: str | None) -> None:
        """Wrap a `tokenizers.Tokenizer`; `eod_token` names its end-of-document token.

        Raises:
            TokenizerError: it has no such token, or several that could be it and none was named; or the tokens
                of a text are left to chance.
        """
        if getattr(tokenizer.model, "dropout", None):
            raise TokenizerError(
                f"tokenizer {name!r} drops merges at random (dropout {tokenizer.model.dropout:g}), expected the same "
                "tokens each time; set model.dropout to null in its tokenizer.json"
            )
        self.json = plain(tokenizer)
        self._tokenizer = tokenizer
        eod_token_id = _eod_token_id(tokenizer, name, eod_token)
        self.info = TokenizerInfo(
            name=name,
            fingerprint=fingerprint_of(self.json, eod_token_id),
            vocab_size=1 + max(tokenizer.get_vocab(with_added_tokens=True).values()),  # ids may have gaps
            eod_token_id=eod_token_id,
        )
        pads = [token for token in PAD_TOKENS if tokenizer.token_to_id(token) is not None]
        self.pad_token_id = tokenizer.token_to_id(pads[0]) if pads else None
        self._dtype = dtype_of(self.info)
        self._locality = locality_of(json.loads(self.json))
        self._chunks = ChunkEncoder(tokenizer, self._dtype) if comes_in_chunks(json.loads(self.json)) else None

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        """Return the tokens of each text, of the type that the vocabulary needs."""
        tokens: list[Tokens] = []
        for batch in batches(texts, BATCH_CHARACTERS):
            if len(batch[0]) > BATCH_CHARACTERS:
                tokens.append(self._encode_long(batch[0]))
            elif self._chunks is not None:
                tokens += self._chunks.encode(batch)
            else:
                encodings = self._tokenizer.encode_batch_fast(batch, add_special_tokens=False)
                tokens += [np.array(encoding.ids, dtype=self._dtype) for encoding in encodings]
        return tokens

    def _encode_long(self, text: str) -> Tokens:
        if self._chunks is not None:
            parts = sections(text, BATCH_CHARACTERS)
            return np.concatenate([self._encode_section(part, self._chunks) for part in parts])
        return self._encode_section(text, None)

    def _encode_section(self, text: str, chunks: ChunkEncoder | None) -> Tokens:
        """Return the tokens of a text that may have nothing to cut it at."""
        if chunks is not None and len(text) < 2 * BATCH_CHARACTERS:
            return chunks.encode([text])[0]
        if self._locality is not None:
            return encode_in_pieces(text, self._encode_one, self._locality, self._dtype)
        return np.array(self._encode_one(text).ids, dtype=self._dtype)

    def _encode_one(self, text: str) -> Any:
        return self._tokenizer.encode_batch([text], add_special_tokens=False)[0]  # `encode` holds the GIL

    def decode(self, tokens: Tokens) -> str:
        """Return the text of tokens; the end-of-document token shows as a line break."""
        parts = np.split(tokens, np.flatnonzero(tokens == self.info.eod_token_id))
        texts = [self._tokenizer.decode(part[number > 0 :].tolist()) for number, part in enumerate(parts)]
        return "\n".join(texts)


def batches(texts: Sequence[str], characters: int) -> Iterator[list[str]]:
    """Yield texts in order, in lists of together at most so many characters, or of one text."""
    batch: list[str] = []
    held = 0
    for text in texts:
        if batch and held + len(text) > characters:
            yield batch
            batch, held = [], 0
        batch.append(text)
        held += len(text)
    if batch:
        yield batch


def load_tokenizer(name: str, eod_token: str | None = None) -> Tokenizer:
    """Return a tokenizer.

    Args:
        name: ``byte``, the path of a tokenizer.json (or of a folder with one), or a name on the Hugging
            Face hub.
        eod_token: its end-of-document token, where it cannot be told.

    Raises:
        TokenizerError: there is no such tokenizer, or its end-of-document token is not known.
    """
    if name == "byte":
        if eod_token is not None:
            raise TokenizerError(f"tokenizer 'byte' ends documents with token 256, not {eod_token!r}; leave it out")
        return ByteTokenizer()
    import tokenizers

    path = Path(name)
    if path.is_dir():
        path = path / "tokenizer.json"
        if not path.is_file():
            raise TokenizerError(f"tokenizer {name!r}: a folder without a tokenizer.json")
    try:
        if path.is_file():
            tokenizer = tokenizers.Tokenizer.from_file(str(path))
        else:
            tokenizer = tokenizers.Tokenizer.from_pretrained(name)
    except Exception as problem:  # noqa: BLE001  the library raises bare Exception
        said = str(problem).splitlines()[0]
        raise TokenizerError(
            f"tokenizer {name!r}: not a tokenizer of the tokenizers library ({said}); make or download it again"
            if path.is_file()
            else f"tokenizer {name!r}: neither 'byte', nor a tokenizer.json, nor to be had from the hub ({said})"
        ) from None
    return HuggingFaceTokenizer(tokenizer, name, eod_token)


@lru_cache(maxsize=4)
def _loaded(spec: TokenizerSpec) -> Tokenizer:
    if spec.json is None:
        return load_tokenizer(spec.name, spec.eod_token)
    import tokenizers

    return HuggingFaceTokenizer(tokenizers.Tokenizer.from_str(spec.json), spec.name, spec.eod_token)


def _eod_token_id(tokenizer: Any, name: str, eod_token: str | None) -> int:
    wanted = [eod_token] if eod_token is not None else list(EOD_TOKENS)
    found = [token for token in wanted if tokenizer.token_to_id(token) is not None]
    if len(found) != 1:
        told = f"has {', '.join(found)}" if found else f"has none of {', '.join(wanted)}"
        raise TokenizerError(f"tokenizer {name!r} {told}; name its end-of-document token with --eod-token")
    return int(tokenizer.token_to_id(found[0]))
