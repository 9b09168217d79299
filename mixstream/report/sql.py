"""What a run did, asked in SQL: DuckDB over the files of its folder, which it may read and nothing else.

exposure  stream, shard, repeat, samples, first_batch, last_batch, batch_size: exposure.parquet
metrics   name, batch, value: metrics.jsonl
weights   update, batch, at_batch, stream, weight: weights.jsonl
streams   stream, language, num_samples, max_repeats; weight, proportion, samples, tokens, repeats to read: plan.json
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mixstream.errors import FormatError, MissingExtraError, QueryError
from mixstream.mixture.exposure import decode
from mixstream.mixture.plan import Plan, PlanRow
from mixstream.report.read import read_run

_STATEMENTS = ("SELECT", "EXPLAIN")  # SHOW, DESCRIBE and SUMMARIZE are among the former


def query(folder: Path, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Return the answer to a question about a run: names of columns, and rows.

    Args:
        folder: of the run, ended or not; or any folder with an exposure.parquet, for that table alone.
        sql: one SELECT, in DuckDB's SQL, over the tables that this module's first lines tell.

    Raises:
        FormatError: there is no such folder, or a file that the question asks for is missing or damaged.
        QueryError: it is no question, or one that cannot be answered.
        MissingExtraError: duckdb is not installed.
    """
    try:
        import duckdb
    except ModuleNotFoundError:
        raise MissingExtraError(
            "asking in SQL needs the package 'duckdb'; install it with pip install 'mixstream-llm[sql]'"
        ) from None
    tables, missing = _open(folder, sql)
    with duckdb.connect(":memory:") as base:
        for name, table in tables.items():
            base.register(name, table)
        for setting in ("enable_external_access = false", "python_enable_replacements = false"):
            base.execute(f"SET {setting}")
        base.execute("SET lock_configuration = true")
        try:
            sql.encode()  # duckdb has no words for half a character
            statements = base.extract_statements(sql)
            if len(statements) != 1 or statements[0].type.name not in _STATEMENTS:
                raise QueryError(f"{_short(sql)}: expected one SELECT; {_told(tables)}")
            answer = base.execute(statements[0])
            return [column[0] for column in answer.description or ()], answer.fetchall()
        except (duckdb.Error, UnicodeError) as problem:
            if missing:
                raise missing[0] from None
            said = " ".join(str(problem).partition("\n\nLINE")[0].split())
            raise QueryError(f"{_short(sql)}: {said}; {_told(tables)}") from None


def _open(folder: Path, sql: str) -> tuple[dict[str, Any], list[FormatError]]:
    """Return the tables that a question names, all of them where it names none, and why some are not there."""
    if not folder.is_dir():
        found = "a file; name the folder of its run" if folder.exists() else "no such folder; name a run's"
        raise FormatError(f"{folder}: {found}, which `mixstream train` makes")
    named = [name for name in TABLES if name in sql.lower()]
    tables, missing = {}, []
    for name in named or TABLES:
        try:
            tables[name] = TABLES[name](folder)
        except FormatError as problem:
            missing.append(problem)
    return tables, missing if named else []


def _exposure(folder: Path) -> Any:
    path = folder / "exposure.parquet"
    if not path.exists():
        raise FormatError(
            f"{path}: no such file; a run writes it as it begins and at checkpoints, of one that an older version "
            f"trained there is none"
        )
    try:
        content = path.read_bytes()
    except OSError as problem:
        raise FormatError(f"{path}: cannot be read ({problem.strerror})") from None
    return decode(content, str(path))[0]


def _metrics(folder: Path) -> Any:
    import pyarrow

    metrics = read_run(folder).metrics
    lengths = [len(series.values) for series in metrics.values()]
    batches, values = (
        np.concatenate([np.empty(0), *(getattr(series, column) for series in metrics.values())])
        for column in ("batches", "values")
    )
    names = pyarrow.DictionaryArray.from_arrays(
        np.repeat(np.arange(len(metrics)), lengths).astype(np.int32), pyarrow.array(list(metrics), pyarrow.string())
    )
    return pyarrow.table({"name": names, "batch": batches.astype(np.int64), "value": values})


def _weights(folder: Path) -> Any:
    updates = read_run(folder).updates
    return _rows(
        ("update", "batch", "at_batch", "stream", "weight"),
        (
            (update.update, update.batch, update.at_batch, stream, weight)
            for update in updates
            for stream, weight in update.weights.items()
        ),
        (int, int, int, str, float),
    )


def _streams(folder: Path) -> Any:
    plan = Plan.load(folder / "plan.json")
    return _rows(
        ("stream", "language", "num_samples", "max_repeats", *PlanRow._fields[1:]),
        (
            (row.name, entry.language, entry.num_samples, entry.max_repeats, *row[1:])
            for entry, row in zip(plan.entries, plan.table(), strict=True)
        ),
        (str, str, int, float, float, float, int, int, float),
    )


TABLES: Mapping[str, Callable[[Path], Any]] = {
    "exposure": _exposure,
    "metrics": _metrics,
    "weights": _weights,
    "streams": _streams,
}


def _rows(names: tuple[str, ...], rows: Iterable[tuple[Any, ...]], types: tuple[type, ...]) -> Any:
    """Return rows as a table, each column of a type, also where there are none."""
    import pyarrow

    arrow = {int: pyarrow.int64(), float: pyarrow.float64(), str: pyarrow.string()}
    columns = list(zip(*rows, strict=True)) or [()] * len(names)
    return pyarrow.table(
        {name: pyarrow.array(own, arrow[kind]) for name, own, kind in zip(names, columns, types, strict=True)}
    )


def _told(tables: Mapping[str, Any]) -> str:
    """Return which tables there are, with the columns of those that are open."""
    told = [f"{name} ({', '.join(tables[name].column_names)})" if name in tables else name for name in TABLES]
    return f"tables are {', '.join(told)}"


def _short(sql: str) -> str:
    line = " ".join(sql.split())
    return repr(line if len(line) <= 60 else f"{line[:57]}...")
