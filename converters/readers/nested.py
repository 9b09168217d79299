"""Fields by dotted paths in nested objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from converters.readers.rows import MISSING

Pick = Callable[[dict[str, Any]], tuple[Any, ...]]


def picker(fields: tuple[str, ...]) -> Pick:
    """Return what picks the values of `fields` out of an object; `MISSING` where there is none."""
    return lambda found: tuple([find_field(found, field) for field in fields])


def column_of(rows: Sequence[dict[str, Any]], field: str) -> list[Any]:
    """Return one field of each object; `MISSING` where there is none."""
    if "." not in field:
        return [found.get(field, MISSING) for found in rows]
    return [find_field(found, field) for found in rows]


def find_field(found: dict[str, Any], field: str) -> Any:
    """Return the field of that name; else, of ``a.b``, what is at ``b`` in the object at ``a``; in null it is null."""
    if field in found:
        return found[field]
    here: Any = found
    for part in field.split("."):
        if here is None:
            return None
        if not isinstance(here, dict) or part not in here:
            return MISSING
        here = here[part]
    return here
