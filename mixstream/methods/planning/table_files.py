"""Tables of runs as files: Parquet, or CSV of the same columns; docs/formats.md describes them.

    run   tokens   parameters   proportion.SOURCE ...   loss.TARGET ...   unique.SOURCE ...

A loss, `parameters` and `unique` may be left out, as cell or as column; the rest is needed.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mixstream.errors import RunTableError, nearest
from mixstream.formats import write_whole
from mixstream.methods.planning.joining import join
from mixstream.methods.planning.table import RunTable
from mixstream.mixture.simplex import Float64

FORMAT, VERSION = "mixstream.runs", "1"
ROUNDING = 0.05  # how far from 1 the sum of rounded proportions may be
SINGLE = ("run", "tokens", "parameters")
FAMILIES = ("proportion", "loss", "unique")
NEEDED = {"run", "tokens", "proportion"}  # columns of which every cell is told
REMEDY = "`mixstream climb collect` writes one, docs/formats.md tells the columns"


@dataclass(frozen=True)
class _Columns:
    """What a file holds: its cells as text or numbers, None where one is empty, and how a row is told."""

    path: Path
    cells: Mapping[str, Sequence[Any]]
    lines: Sequence[int] | None  # of each row, where rows are lines of text

    def place(self, row: int, column: str) -> str:
        """Return the words for a cell's place."""
        where = f"row {row + 1}" if self.lines is None else f"line {self.lines[row]}"
        return f"{self.path}: {where}, column {column!r}"


def read_runs(path: str | Path, *, normalise: bool = False) -> RunTable:
    """Return the table of runs of a file, by its ending: ``.parquet`` or ``.csv``.

    Args:
        path: the file.
        normalise: divide each row of proportions by its sum, which may be off 1 by up to 0.05: for proportions
            that were rounded.

    Raises:
        RunTableError: no such file, one that is truncated, empty or of another format, columns that are missing,
            unknown or there twice, or a cell that cannot be, with its place.
    """
    path = Path(path)
    readers = {".parquet": _read_parquet, ".csv": _read_csv}
    if path.suffix not in readers:
        raise RunTableError(f"{path}: a table of runs is a .parquet or a .csv file; rename it, or write it as one")
    if not path.is_file():
        raise RunTableError(f"{path}: no such file; {REMEDY}")
    try:
        columns = readers[path.suffix](path)
    except OSError as problem:
        raise RunTableError(f"{path}: cannot be read ({problem.strerror or problem}); {REMEDY}") from None
    return _table(columns, normalise)


def read_all(paths: Sequence[str | Path], *, normalise: bool = False) -> RunTable:
    """Return the runs of several files as one table.

    Raises:
        RunTableError: no file, as `read_runs` and `join`.
    """
    return join({str(path): read_runs(path, normalise=normalise) for path in paths})


def write_runs(path: str | Path, table: RunTable) -> None:
    """Write a table of runs, by the path's ending as ``.parquet`` or ``.csv``; whole or not at all, exact.

    Raises:
        RunTableError: another ending.
        FormatError: it cannot be written.
    """
    path = Path(path)
    columns = _columns_of(table)
    if path.suffix == ".csv":
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(columns)
        rows.writerows(["" if cell is None else cell for cell in row] for row in zip(*columns.values(), strict=True))
        write_whole(path, text.getvalue())
    elif path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        types = {name: pyarrow.string() if name == "run" else pyarrow.float64() for name in columns}
        arrow = pyarrow.table({name: pyarrow.array(cells, types[name]) for name, cells in columns.items()})
        sink = pyarrow.BufferOutputStream()
        about = {"mixstream.format": FORMAT, "mixstream.version": VERSION}
        pyarrow.parquet.write_table(arrow.replace_schema_metadata(about), sink)
        write_whole(path, sink.getvalue().to_pybytes())
    else:
        raise RunTableError(f"{path}: a table of runs is a .parquet or a .csv file; choose one of these endings")


def _columns_of(table: RunTable) -> dict[str, list[Any]]:
    """Return a table's cells by column; what is not told is None, a column of nothing else is left out."""

    def told(values: Float64) -> list[float | None]:
        return [value if math.isfinite(value) else None for value in values.tolist()]

    columns: dict[str, list[Any]] = {"run": list(table.runs), "tokens": table.tokens.tolist()}
    columns["parameters"] = told(table.parameters)
    columns |= {f"proportion.{name}": table.proportions[:, i].tolist() for i, name in enumerate(table.sources)}
    columns |= {f"loss.{name}": told(table.losses[:, i]) for i, name in enumerate(table.targets)}
    columns |= {f"unique.{name}": told(table.unique[:, i]) for i, name in enumerate(table.sources)}
    optional = ("parameters", "unique.")
    return {
        name: cells
        for name, cells in columns.items()
        if not name.startswith(optional) or any(cell is not None for cell in cells)
    }


def _read_csv(path: Path) -> _Columns:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            lines = [(reader.line_num, cells) for cells in reader if cells]
    except (csv.Error, UnicodeDecodeError) as problem:
        raise RunTableError(f"{path}: not a CSV file ({problem}); {REMEDY}") from None
    if not lines:
        raise RunTableError(f"{path}: is empty; {REMEDY}")
    (_, header), *rows = lines
    names = [name.strip() for name in header]
    _check_names(path, names)
    for line, cells in rows:
        if len(cells) != len(names):
            raise RunTableError(f"{path}: line {line} has {len(cells)} cells, expected {len(names)} as the first line")
    by_name = {name: [cells[i].strip() or None for _, cells in rows] for i, name in enumerate(names)}
    return _Columns(path, by_name, [line for line, _ in rows])


def _read_parquet(path: Path) -> _Columns:
    import pyarrow
    import pyarrow.parquet

    try:
        arrow = pyarrow.parquet.ParquetFile(path).read()
    except pyarrow.ArrowException as problem:
        told = str(problem).splitlines()[0]
        raise RunTableError(f"{path}: not a Parquet file ({told}); it may be truncated, {REMEDY}") from None
    about = arrow.schema.metadata or {}
    found = tuple(about.get(key, b"").decode(errors="replace") for key in (b"mixstream.format", b"mixstream.version"))
    if any(found) and found != (FORMAT, VERSION):
        raise RunTableError(f"{path}: is {' version '.join(found)}, expected {FORMAT} version {VERSION}; {REMEDY}")
    _check_names(path, arrow.column_names)
    return _Columns(path, {name: arrow.column(name).to_pylist() for name in arrow.column_names}, None)


def _check_names(path: Path, names: Sequence[str]) -> None:
    """Refuse columns that are unknown, there twice, or missing."""
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise RunTableError(f"{path}: column {twice[0]!r} stands twice; keep one of the two")
    known = [*SINGLE, *(f"{family}.NAME" for family in FAMILIES)]
    for name in names:
        family, dot, rest = name.partition(".")
        if name not in SINGLE and not (family in FAMILIES and rest):
            alike = nearest(family, FAMILIES) if dot else nearest(name, SINGLE)
            raise RunTableError(f"{path}: unknown column {name!r}{alike} (known: {', '.join(known)})")
    for needed in ("run", "tokens", "proportion.", "loss."):
        if not any(name == needed or (needed[-1] == "." and name.startswith(needed)) for name in names):
            shown = f"{needed}NAME" if needed[-1] == "." else needed
            raise RunTableError(f"{path}: no column {shown!r} (found {', '.join(names)}); {REMEDY}")
    for name in names:
        source = name.removeprefix("unique.")
        if source != name and f"proportion.{source}" not in names:
            raise RunTableError(f"{path}: column {name!r}, but no 'proportion.{source}'; drop it, or give that too")


def _table(columns: _Columns, normalise: bool) -> RunTable:
    """Return the checked table of a file's cells."""
    path, cells = columns.path, columns.cells
    if not cells["run"]:
        raise RunTableError(f"{path}: holds no run; {REMEDY}")
    sources, targets = ([name.partition(".")[2] for name in cells if name.startswith(f"{f}.")] for f in FAMILIES[:2])
    proportions = np.stack([_numbers(columns, f"proportion.{name}") for name in sources], axis=1)
    runs = tuple(_run_name(columns, row) for row in range(len(cells["run"])))
    missing = np.full(len(runs), math.nan)
    unique = [_numbers(columns, f"unique.{name}") if f"unique.{name}" in cells else missing for name in sources]
    try:
        return RunTable(
            sources=tuple(sources),
            targets=tuple(targets),
            runs=runs,
            proportions=_normalised(proportions, runs) if normalise else proportions,
            tokens=_numbers(columns, "tokens"),
            losses=np.stack([_numbers(columns, f"loss.{name}") for name in targets], axis=1),
            parameters=_numbers(columns, "parameters") if "parameters" in cells else missing,
            unique=np.where(np.isnan(np.stack(unique, axis=1)), math.inf, np.stack(unique, axis=1)),
        )
    except RunTableError as problem:
        raise RunTableError(str(problem) if str(problem).startswith(str(path)) else f"{path}: {problem}") from None


def _run_name(columns: _Columns, row: int) -> str:
    name = columns.cells["run"][row]
    if name is None:
        raise RunTableError(f"{columns.place(row, 'run')}: is empty; give every run a name")
    return str(name)


def _numbers(columns: _Columns, column: str) -> Float64:
    """Return a column's numbers, nan where a cell that may be is empty."""
    numbers = np.empty(len(columns.cells[column]))
    for row, cell in enumerate(columns.cells[column]):
        if cell is None and column.partition(".")[0] in NEEDED:
            raise RunTableError(f"{columns.place(row, column)}: is empty, expected a number")
        numbers[row] = math.nan if cell is None else _number(cell, columns, row, column)
    return numbers


def _number(cell: object, columns: _Columns, row: int, column: str) -> float:
    try:
        if isinstance(cell, bool) or not isinstance(cell, (str, int, float)):
            raise ValueError
        return float(cell)
    except (ValueError, OverflowError):
        raise RunTableError(f"{columns.place(row, column)}: found {cell!r}, expected a number") from None


def _normalised(proportions: Float64, runs: Sequence[str]) -> Float64:
    """Return rounded proportions, each row divided by its sum."""
    sums = proportions.sum(axis=1)
    off = ~(np.abs(sums - 1) <= ROUNDING)
    if off.any():
        first = int(np.argmax(off))
        raise RunTableError(
            f"run {runs[first]!r}: its proportions sum to {sums[first]:.6g}, which no rounding explains (expected 1 "
            f"within {ROUNDING}); give every source its share"
        )
    shares: Float64 = proportions / sums[:, None]
    return shares
