"""By what a tokenizer is known again: a hash of all that decides its tokens."""

from __future__ import annotations

import hashlib
from typing import Any

ENCODING_VERSION = 2  # how texts are given to the library; part of the fingerprint. 2: special tokens are text


def plain(tokenizer: Any) -> str:
    """Make a `tokenizers.Tokenizer` give the tokens of a text and nothing else; return all of it as JSON.

    What only concerns special tokens, padding and truncation is taken out, so that it does not tell two apart.
    """
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.post_processor = None  # adds special tokens, and moves offsets
    tokenizer.encode_special_tokens = True
    content: str = tokenizer.to_str()
    return content


def fingerprint_of(content: str, eod_token_id: int) -> str:
    """Return the fingerprint of a tokenizer of which `plain` says this, with this end-of-document token."""
    return hashlib.blake2b(f"{ENCODING_VERSION} {eod_token_id} {content}".encode(), digest_size=8).hexdigest()
