"""A cache's limit as a person writes it."""

from __future__ import annotations

import re
from decimal import Decimal

from mixstream.errors import CacheError

_UNITS = {"": 1, "b": 1} | {
    f"{letter}{kind}": base**power
    for power, letter in enumerate("kmgtp", start=1)
    for kind, base in (("b", 1000), ("ib", 1024))
}
_LIMIT = re.compile(
    rf"(?P<number>[0-9]+(\.[0-9]+)?)\s*(?P<unit>{'|'.join(sorted(_UNITS, reverse=True))})", re.IGNORECASE
)


def limit_bytes(limit: int | str | None) -> int | None:
    """Return a cache limit in bytes: a whole number, or a text such as ``200 GB`` (10^9) or ``64 GiB`` (2^30).

    Raises:
        CacheError: it is neither.
    """
    if limit is None:
        return None
    text = str(limit).replace("_", "").replace(",", "").strip()
    found = _LIMIT.fullmatch(text)
    if isinstance(limit, bool) or found is None or not int(Decimal(found["number"]) * _UNITS[found["unit"].lower()]):
        raise CacheError(f"cache_limit={limit!r}; expected bytes above 0, as a number or such as '200 GB' or '64 GiB'")
    return int(Decimal(found["number"]) * _UNITS[found["unit"].lower()])
