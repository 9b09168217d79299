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
_NUMBER = r"(?P<number>([0-9]+|[0-9]{1,3}(,[0-9]{3})+)(\.[0-9]+)?)"
_LIMIT = re.compile(rf"{_NUMBER}\s*(?P<unit>{'|'.join(sorted(_UNITS, reverse=True))})", re.IGNORECASE)


def limit_bytes(limit: int | str | None) -> int | None:
    """Return a cache limit in bytes: a whole number, or a text such as ``200 GB`` (10^9) or ``64 GiB`` (2^30).

    A comma stands between thousands only: many write ``1,5 GB`` and do not mean 15.

    Raises:
        CacheError: it is neither.
    """
    if limit is None:
        return None
    found = None if isinstance(limit, bool) else _LIMIT.fullmatch(str(limit).replace("_", "").strip())
    size = int(Decimal(found["number"].replace(",", "")) * _UNITS[found["unit"].lower()]) if found else 0
    if not size:
        raise CacheError(f"cache_limit={limit!r}; expected bytes above 0, as a number or such as '200 GB' or '64 GiB'")
    return size
