"""CLIMB: proportions from a law of how languages help each other in a mixture (arXiv 2509.15556).

forms        three readings of the interaction-aware ratio r~
ratio        the law at a ratio, and the ratio at a loss
law          the whole law: losses of all languages, at any budget and mixture
needs        whether a table has enough runs, and what is missing
monolingual  the law of a language read alone
receiver     the law of one language in mixtures, fitted
fit          the laws of all languages, and the form by held-out error
allocate     direction and magnitude; least sum of losses; least greatest excess
schedule     proportions that change, so that what was read is the best for so many tokens at any time
neighbours   languages without pilots
planner      the face of it all: `Climb`
file         climb.json: a fitted Climb
"""

from mixstream.methods.climb.planner import Climb, Fitted

__all__ = ["Climb", "Fitted"]
