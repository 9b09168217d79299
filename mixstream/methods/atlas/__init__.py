"""ATLAS: transfer between languages, repeats and model size in one law (arXiv 2510.22037).

law      the loss of every target
fit      the law of each, fitted
planner  the face of it all: `Atlas`; and the transfer score that the paper tells
"""

from mixstream.methods.atlas.planner import (
    Atlas,
    bilingual_transfer_score,
    given_transfer,
    score_of_transfer,
    transfer_of_score,
)

__all__ = ["Atlas", "bilingual_transfer_score", "given_transfer", "score_of_transfer", "transfer_of_score"]
