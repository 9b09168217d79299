"""Where documents begin and end in rows of tokens: what attention within a document needs, and what padding is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from mixstream.streams.index import Int64

IGNORED = -100  # the label of a token that no loss counts, as torch's cross entropy and transformers have it


def padding_of(input_ids: Int64, eod_token_id: int) -> npt.NDArray[np.bool_]:
    """Return which tokens of rows (n, sequence) of a document each are padding: those behind its end, if it has one."""
    ends = input_ids == eod_token_id
    behind: npt.NDArray[np.bool_] = np.logical_or.accumulate(ends, axis=1)
    behind[:, 1:] = behind[:, :-1].copy()
    behind[:, 0] = False
    return behind


def document_columns(
    input_ids: torch.Tensor, eod_token_id: int, padded: torch.Tensor | None = None
) -> dict[str, torch.Tensor]:
    """Return which document of its row each token is in, and its position there.

    A document ends with its end-of-document token; a row begins with the rest of one, which counts as its first.

    Args:
        input_ids: (..., sequence) int64.
        eod_token_id: the token that ends a document.
        padded: (...,) bool, rows of one document and its padding, which counts as a second document, be it of
            end-of-document tokens; None: no row.

    Returns:
        ``document_ids`` and ``position_ids``, (..., sequence) int64, both from 0. A token may attend to those
        before it that have its document id.
    """
    ends = input_ids == eod_token_id
    if padded is not None:
        ends &= ~padded[..., None] | (ends.cumsum(dim=-1) == 1)  # the first end of those rows
    begins = torch.zeros_like(ends)
    begins[..., 1:] = ends[..., :-1]
    places = torch.arange(input_ids.shape[-1]).expand_as(input_ids)
    first = torch.where(begins, places, 0).cummax(dim=-1).values
    return {"document_ids": begins.cumsum(dim=-1), "position_ids": places - first}
