"""mixstream: a streaming data loader and resampling engine for multilingual pre-training.

    catalog = mixstream.Catalog.open("data/streams")
    plan = mixstream.build_plan(catalog, "temperature:0.3", budget_tokens=50_000_000, batch_size=64)
    plan.save("plan.json")

Importing this loads numpy and pydantic, never torch; `mixstream.loader` reads what a plan decided.
"""

from mixstream.mixture.build import build_plan
from mixstream.mixture.plan import Plan
from mixstream.streams.catalog import Catalog

__all__ = ["Catalog", "Plan", "build_plan"]
__version__ = "0.1.0"
