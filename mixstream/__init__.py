"""mixstream: a streaming data loader and resampling engine for multilingual pre-training.

    catalog = mixstream.Catalog.open("data/streams")
    plan = mixstream.build_plan(catalog, "temperature:0.3", budget_tokens=50_000_000, batch_size=64)
    plan.save("plan.json")

Importing this loads nothing; what is asked of it loads numpy and pydantic, never torch. `mixstream.loader` reads what a
plan decided.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mixstream.mixture.build import build_plan
    from mixstream.mixture.plan import Plan
    from mixstream.streams.catalog import Catalog

__all__ = ["Catalog", "Plan", "build_plan"]
__version__ = "0.1.0"
_ROOMS = {"Catalog": "streams.catalog", "Plan": "mixture.plan", "build_plan": "mixture.build"}


def __getattr__(name: str) -> Any:
    """Return a name of this package, loaded when it is first asked for: the command line's help needs none."""
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f"mixstream.{_ROOMS[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
