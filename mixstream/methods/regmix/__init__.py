"""RegMix: losses regressed on proportions by boosted trees, and the best of many drawn mixtures (arXiv 2407.01492).

mixtures  drawn ones, and those held within floors and caps
planner   the face of it all: `RegMix`
"""

from mixstream.methods.regmix.planner import RegMix

__all__ = ["RegMix"]
