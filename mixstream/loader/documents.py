"""Where documents begin in rows of packed tokens: what attention within a document needs."""

from __future__ import annotations

import torch


def document_columns(input_ids: torch.Tensor, eod_token_id: int) -> dict[str, torch.Tensor]:
    """Return which document of its row each token is in, and its position there.

    A document ends with its end-of-document token; a row begins with the rest of one, which counts as its first.

    Args:
        input_ids: (..., sequence) int64.
        eod_token_id: the token that ends a document.

    Returns:
        ``document_ids`` and ``position_ids``, (..., sequence) int64, both from 0. A token may attend to those
        before it that have its document id.
    """
    ends = input_ids == eod_token_id
    begins = torch.zeros_like(ends)
    begins[..., 1:] = ends[..., :-1]
    places = torch.arange(input_ids.shape[-1]).expand_as(input_ids)
    first = torch.where(begins, places, 0).cummax(dim=-1).values
    return {"document_ids": begins.cumsum(dim=-1), "position_ids": places - first}
