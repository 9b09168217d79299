"""Tokens of a stream back to text, by the tokenizer that its stream.json names, where it is still here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mixstream.errors import TokenizerError
from mixstream.streams.manifest import TokenizerInfo


def find_decoder(info: TokenizerInfo) -> Callable[[Any], str]:
    """Return what makes a text of tokens; nothing is fetched from a hub.

    Raises:
        TokenizerError: the tokenizer is not here, or is another one by now.
    """
    from converters.tokens.tokenise import load_tokenizer

    if info.name == "byte":
        return load_tokenizer("byte").decode
    path = Path(info.name) / "tokenizer.json" if Path(info.name).is_dir() else Path(info.name)
    if not path.is_file():
        raise TokenizerError(f"there is no tokenizer {info.name!r} here, so that its tokens cannot be told as text")
    loaded = load_tokenizer(str(path), _end_of_documents(path, info.eod_token_id))
    if loaded.info.fingerprint != info.fingerprint:
        raise TokenizerError(
            f"tokenizer {info.name!r} has fingerprint {loaded.info.fingerprint}, the stream was made with "
            f"{info.fingerprint}: it has changed since, and would tell other texts"
        )
    return loaded.decode


def _end_of_documents(path: Path, token_id: int) -> str | None:
    import tokenizers

    try:
        token: str | None = tokenizers.Tokenizer.from_file(str(path)).id_to_token(token_id)
    except Exception as problem:  # noqa: BLE001  the library raises bare Exception
        raise TokenizerError(f"tokenizer {str(path)!r}: cannot be read ({str(problem).splitlines()[0]})") from None
    return token
