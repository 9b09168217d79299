"""The repetition-aware law of a mixture, and the proportions and repeats that it finds best (arXiv 2605.12715).

law      the loss of one target, and the best share of one scarce source
form     its unknowns as a vector
fit      the law of one target, fitted
planner  the face of it all: `MixtureLaw`
"""

from mixstream.methods.mixture_law.law import LossLaw, best_share
from mixstream.methods.mixture_law.planner import FittedMixture, MixtureLaw

__all__ = ["FittedMixture", "LossLaw", "MixtureLaw", "best_share"]
