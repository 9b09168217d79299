"""Numbers as people write them on the command line: 1T, 20B, 300M, 50_000_000, eu=20B."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal

import typer

UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
_AMOUNT = re.compile(r"(\d+(?:_\d+)*(?:\.\d+)?(?:[eE]\+?\d{1,2})?)([KMBT]?)", re.IGNORECASE)


def parse_amount(text: str, option: str) -> int:
    """Return the whole number that `text` says, such as 1.5T, 300M or 50_000_000.

    Args:
        text: digits, with underscores between them or a point, then K, M, B, T (a thousand, a million, a billion
            of 10^9, a trillion of 10^12) or none.
        option: what is asked for, for the message.

    Raises:
        typer.BadParameter: it is no such number, not whole, or 0.
    """
    found = _AMOUNT.fullmatch(text.strip())
    amount = Decimal(found[1].replace("_", "")) * UNITS[found[2].upper()] if found else Decimal(0)
    if amount <= 0 or amount != amount.to_integral_value():
        raise typer.BadParameter(
            f"{option} {text!r}; expected a whole number above 0, such as 1T, 20B, 300M or 50_000_000"
        )
    return int(amount)


def parse_repeats(given: Sequence[str] | None) -> dict[str, float] | None:
    """Return repeat budgets from options such as ``4`` and ``eu.wiki=20``.

    Raises:
        typer.BadParameter: no number, or one name twice.
    """
    budgets: dict[str, float] = {}
    for option in given or []:
        name, value = _named(option, "STREAM")
        if (name or "*") in budgets:
            raise typer.BadParameter(f"{option!r}; the budget of {name or 'all streams'} is given twice")
        budgets[name or "*"] = value
    return budgets or None


def parse_weights(given: Sequence[str] | None) -> dict[str, float] | None:
    """Return weights of targets from options such as ``eu=2`` and ``ca``, which is of weight 1.

    Raises:
        typer.BadParameter: no number, or one name twice.
    """
    weights: dict[str, float] = {}
    for option in given or []:
        name, value = _named(option, "TARGET") if "=" in option else (option, 1.0)
        if not name or name in weights:
            raise typer.BadParameter(f"{option!r}; expected each target once, as TARGET or TARGET=NUMBER")
        weights[name] = value
    return weights or None


def parse_sizes(given: Sequence[str]) -> dict[str, float]:
    """Return sizes from options such as ``eu=2B``.

    Raises:
        typer.BadParameter: no NAME=TOKENS, or one name twice.
    """
    sizes: dict[str, float] = {}
    for option in given:
        name, _, amount = option.rpartition("=")
        if not name or name in sizes:
            raise typer.BadParameter(f"{option!r}; expected each source once, as NAME=TOKENS")
        sizes[name] = float(parse_amount(amount, f"--size {name}"))
    return sizes


def _named(option: str, kind: str) -> tuple[str, float]:
    name, _, value = option.rpartition("=")
    try:
        return name, float(value)
    except ValueError:
        raise typer.BadParameter(f"{option!r}; expected a number or {kind}=NUMBER") from None
