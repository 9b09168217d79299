"""Whatever is typed, and whatever lies where it points: an exit code, two lines at most, never a traceback."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mixstream.cli import app, main

WORDS = (
    "",
    "-1",
    "0",
    "1",
    "3",
    "0.5",
    "nan",
    "inf",
    "1e400",
    "2" * 30,
    "eu.tales",
    "eu.tale=3",
    "x=y",
    "=",
    "a b",
    "é\n",
)
LEFT_OUT = {
    "cluster",
    "workers",
    "help",
    "version",
}  # would start, or write at home
GROUP = typer.main.get_command(app)


def commands(group: object, name: tuple[str, ...] = ()) -> dict[tuple[str, ...], object]:
    """Return all commands by what is typed for them."""
    found = {}
    for own, command in group.commands.items():
        typed = (*name, *own.split())
        found |= commands(command, typed) if hasattr(command, "commands") else {typed: command}
    return found


COMMANDS = commands(GROUP)


@pytest.fixture(scope="module")
def places(streams: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Files and folders of all kinds, most of them not what is asked for."""
    root = tmp_path_factory.mktemp("places")
    contents = {
        "empty.json": b"",
        "null.json": b"null",
        "list.yaml": b"- 1\n- {a: [}\n",
        "twice.yaml": b"kind: base\nkind: base\n",
        "binary.parquet": bytes(range(256)) * 4,
        "text.jsonl": b'{"text": 3}\nnot json\n',
        "half.json": json.dumps({"format": "mixstream.plan", "version": 1, "entries": [{}]}).encode()[:-4],
        "other.json": b'{"format": "mixstream.plan", "version": 99}',
        "run/plan.json": b'{"format": "mixstream.plan"',
        "run/weights.jsonl": b'{"version": 3}\n{"half',
        "run/metrics.jsonl": b'{"batch": 1}\n\xff\xfe',
        "run/recipe.yaml": b"a: b: c",
        "run/result.json": b"[]",
        "broken/eu.a/stream.json": b"{}",
        "broken/eu.a/index.json": b'{"shards": [{}], "version": 2}',
    }
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    (root / "nothing").mkdir()
    (root / "loop").symlink_to(root / "loop")
    found = [str(path) for path in sorted(root.iterdir())]
    return [*found, str(streams), str(streams / "eu.tales"), str(root / "absent"), "/dev/null", "nosuch://a/b"]


@pytest.mark.parametrize("typed", sorted(COMMANDS), ids="-".join)
def test_no_input_makes_a_traceback(typed, places, tmp_path_factory, capsys, monkeypatch):
    """An exception that is not an exit would fail this test."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    parameters = [own for own in COMMANDS[typed].params if own.name not in LEFT_OUT]
    value = st.one_of(st.sampled_from(places), st.sampled_from(WORDS))

    @st.composite
    def calls(draw: st.DrawFn) -> list[str]:
        given = list(typed)
        for own in parameters:
            is_option = own.param_type_name == "option"
            if is_option and not draw(st.booleans() if own.required else st.sampled_from([True, False, False, False])):
                continue
            flag = [max(own.opts, key=len)] if is_option else []
            given += flag if is_option and own.is_flag else [*flag, draw(value)]
        return given

    @settings(max_examples=8, suppress_health_check=list(HealthCheck), database=None, derandomize=True)
    @given(calls())
    def fuzz(arguments: list[str]) -> None:
        folder = tmp_path_factory.mktemp("here")
        monkeypatch.chdir(folder)
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        told = capsys.readouterr()
        assert stop.value.code in (0, 1, 2), (arguments, told.err)
        assert "Traceback" not in told.out + told.err
        if stop.value.code == 2:
            lines = told.err.splitlines()
            assert any(line.startswith("error: ") for line in lines), (arguments, told.err)
            assert len(lines) <= 2, (arguments, told.err)

    fuzz()
    assert Path.cwd() != Path(os.sep)


def test_every_command_is_tried():
    assert {("plan",), ("plan", "diff"), ("climb", "fit"), ("train",), ("completion",)} <= COMMANDS.keys()
