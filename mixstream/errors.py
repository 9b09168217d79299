"""The errors that mixstream raises.

Every one tells what was found, what was expected and what to do; the command line prints it on one
line and exits with 2. Where the cause is a bad value it is a `ValueError` too.

    MixstreamError
    ├── FormatError (ValueError)      a file of ours that does not say what its format asks
    │   └── RecipeError               a recipe with an unknown key or a wrong value
    ├── CorpusError (ValueError)      a source text file: missing, empty, unreadable, a bad line
    ├── TokenizerError (ValueError)   a tokenizer that is not there or has no end-of-document token
    ├── StreamError (ValueError)      a stream or catalog: missing, of another tokenizer or length
    │   ├── ShardError                one shard: truncated, or not what index.json says
    │   ├── RemoteError               an object store that refuses, or does not answer for long
    │   └── CacheError                a cache folder: too small a limit, no room, cannot be written
    ├── MixtureError (ValueError)     what was asked of the mixture cannot be
    │   ├── WeightsError              weights that are not a point of the simplex over the streams
    │   ├── FloorError                floors that add up to more than the whole, or exceed a cap
    │   └── BudgetError               budgets that cannot supply the run
    ├── RunTableError (ValueError)    a table of runs that is wrong, or of other names than were asked for
    ├── FitError (ValueError)         a law that cannot be fitted, solved or asked: too few runs, no convergence
    ├── QueryError (ValueError)       a question in SQL that cannot be answered
    ├── StateError (ValueError)       a state or a run folder that belongs to another plan
    ├── PlanSpentError                the plan's last batch has been read, and more was asked for
    ├── ScoreError (ArithmeticError)  scores or losses that are not finite numbers
    └── MissingExtraError (ImportError) an optional dependency that is not installed
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MixstreamError(Exception):
    """Base of all errors that mixstream raises on purpose."""


class FormatError(MixstreamError, ValueError):
    """A file does not say what its format asks for."""


class RecipeError(FormatError):
    """A recipe has an unknown key or a wrong value."""


class CorpusError(MixstreamError, ValueError):
    """A source text file is missing, empty, unreadable or has a bad line."""


class TokenizerError(MixstreamError, ValueError):
    """A tokenizer is not there, is no tokenizer, or has no end-of-document token."""


class StreamError(MixstreamError, ValueError):
    """A stream or catalog is missing, or does not fit the others."""


class ShardError(StreamError):
    """A shard is not what index.json says of it."""


class RemoteError(StreamError):
    """An object store refuses, or does not answer for long."""


class CacheError(StreamError):
    """A cache folder is too small, has no room, or cannot be written."""


class MixtureError(MixstreamError, ValueError):
    """What was asked of the mixture cannot be."""


class WeightsError(MixtureError):
    """Weights are not finite, non-negative numbers, one a stream, that sum to 1."""


class FloorError(MixtureError):
    """Floors are infeasible."""


class BudgetError(MixtureError):
    """Budgets cannot supply the run."""


class RunTableError(MixstreamError, ValueError):
    """A table of runs is wrong in itself, or of other sources, targets or runs than were asked for."""


class FitError(MixstreamError, ValueError):
    """A law cannot be fitted, solved, or asked for what it does not know."""


class QueryError(MixstreamError, ValueError):
    """A question in SQL cannot be answered."""


class StateError(MixstreamError, ValueError):
    """A state or a run folder belongs to another plan or recipe."""


class PlanSpentError(MixstreamError):
    """Every batch of the plan has been read."""


class ScoreError(MixstreamError, ArithmeticError):
    """Scores or losses are not finite numbers."""


class MissingExtraError(MixstreamError, ImportError):
    """An optional dependency is not installed."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the known name most like `name`, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
