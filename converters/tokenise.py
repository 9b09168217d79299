"""Text to tokens: the built-in byte-level tokenizer, or any Hugging Face one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mixstream.errors import TokenizerError
from mixstream.streams.manifest import TokenizerInfo

Tokens = npt.NDArray[Any]

EOD_TOKENS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<eod>", "[EOS]")


class Tokenizer(Protocol):
    """Makes tokens of texts."""

    info: TokenizerInfo

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        """Return the tokens of each text, without special ones."""
        ...


def dtype_of(info: TokenizerInfo) -> str:
    """Return the smallest type that holds every token of a vocabulary: ``uint16`` or ``uint32``."""
    return "uint16" if info.vocab_size <= 1 << 16 else "uint32"


class ByteTokenizer:
    """Every UTF-8 byte is a token; 256 ends a document. Nothing to train, every language can be told."""

    info = TokenizerInfo(name="byte", fingerprint="byte-1", vocab_size=257, eod_token_id=256)

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        """Return the bytes of each text."""
        return [np.frombuffer(text.encode("utf-8"), dtype=np.uint8).astype(np.uint16) for text in texts]

    def decode(self, tokens: Tokens) -> str:
        """Return the text of tokens; the end-of-document token shows as a line break."""
        values = np.where(tokens == self.info.eod_token_id, ord("\n"), tokens)
        return values.astype(np.uint8).tobytes().decode("utf-8", errors="replace")


class HuggingFaceTokenizer:
    """A tokenizer of the `tokenizers` library."""

    def __init__(self, tokenizer: Any, name: str, eod_token: str | None) -> None:
        """Wrap a `tokenizers.Tokenizer`; `eod_token` names its end-of-document token.

        Raises:
            TokenizerError: it has no such token, or several that could be it and none was named.
        """
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer = tokenizer
        eod_token_id = _eod_token_id(tokenizer, name, eod_token)
        self.info = TokenizerInfo(
            name=name,
            fingerprint=hashlib.blake2b(f"{eod_token_id} {tokenizer.to_str()}".encode(), digest_size=8).hexdigest(),
            vocab_size=1 + max(tokenizer.get_vocab(with_added_tokens=True).values()),  # ids may have gaps
            eod_token_id=eod_token_id,
        )

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        """Return the tokens of each text."""
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.int64) for encoding in encodings]


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
        raise TokenizerError(
            f"tokenizer {name!r}: neither 'byte', nor a tokenizer.json, nor to be had from the hub "
            f"({str(problem).splitlines()[0]})"
        ) from None
    return HuggingFaceTokenizer(tokenizer, name, eod_token)


def _eod_token_id(tokenizer: Any, name: str, eod_token: str | None) -> int:
    wanted = [eod_token] if eod_token is not None else list(EOD_TOKENS)
    found = [token for token in wanted if tokenizer.token_to_id(token) is not None]
    if len(found) != 1:
        told = f"has {', '.join(found)}" if found else f"has none of {', '.join(wanted)}"
        raise TokenizerError(f"tokenizer {name!r} {told}; name its end-of-document token with --eod-token")
    return int(tokenizer.token_to_id(found[0]))
