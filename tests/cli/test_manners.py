"""How commands end: exit codes, errors in two lines, what a pipe and a terminal get, completion."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
from rich.text import Text

from mixstream.cli.manners import _on_one_line, _told_extras
from mixstream.cli.showing import table
from mixstream.errors import MissingExtraError

COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@pytest.mark.parametrize(
    ("arguments", "told", "of"),
    [
        (["pln", "x"], "error: no such command 'pln'; did you mean 'plan'?", "mixstream"),
        (["climb", "fti", "x"], "error: no such command 'fti'; did you mean 'fit'?", "mixstream climb"),
        (["plan", "dif", "a", "b"], "error: no such command 'plan dif'; did you mean 'plan diff'?", "mixstream"),
        (["plan", "x", "--bach-size", "3"], "--batch-size", "mixstream plan"),
        (["plan", "diff", "x"], "error: Missing argument", "mixstream plan diff"),
        (["completion", "bsh"], "'bsh' is not one of 'bash', 'zsh', 'fish'", "mixstream completion"),
    ],
)
def test_a_wrong_call_is_told_in_two_lines(call, arguments, told, of):
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    first, second = err.splitlines()
    assert told in first
    assert second == f"{of} --help tells what it takes"


def test_no_command_shows_the_help(call):
    for group in ([], ["climb"], ["tokenizer"]):
        code, out, err = call(*group)
        assert (code, out) == (2, "")
        assert err.startswith(f"Usage: {' '.join(['mixstream', *group])} [OPTIONS] COMMAND")


def test_debug_shows_where_an_error_comes_from(call):
    for place in range(3):
        arguments = ["inspect", "nowhere"]
        arguments.insert(place, "--debug")
        code, _, err = call(*arguments)
        assert code == 2
        assert "Traceback (most recent call last)" in err
        assert err.splitlines()[-1].startswith("error: nowhere: no such folder")
    assert "Traceback" not in call("inspect", "nowhere")[2]


BREAK = """
import sys
from mixstream.cli import app, main
@app.command("break")
def broken() -> None:
    raise ZeroDivisionError("one\\n two")
main({arguments!r})
"""


@pytest.mark.parametrize("debug", [False, True])
def test_a_failure_that_nobody_foresaw_exits_with_1(tmp_path, debug):
    code = BREAK.format(arguments=["break", *(["--debug"] if debug else [])])
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment)
    assert (done.returncode, done.stdout) == (1, "")
    kept = list(tmp_path.glob("mixstream-*.txt"))
    if debug:
        assert "Traceback" in done.stderr
        assert kept == []
        return
    where, what = done.stderr.splitlines()
    assert where == f"not foreseen; the traceback is in {kept[0]}, and --debug prints it"
    assert re.fullmatch(r"error: ZeroDivisionError at <string>:\d+: one two", what)
    assert "Traceback" in kept[0].read_text()
    assert "ZeroDivisionError: one" in kept[0].read_text()


@pytest.mark.parametrize("command", ["--help", "plan --help", "inspect STREAMS", "inspect STREAMS --json"])
def test_a_reader_that_leaves_is_no_error(shell, streams, command):
    """`true` reads nothing; `head` reads a line."""
    command = command.replace("STREAMS", str(streams))
    for reader in ("true", "head -n 1"):
        done = shell(f"set -o pipefail; (sleep 0.2; mixstream {command}) | {reader}", PYTHONUNBUFFERED="")
        assert done.stderr == ""
        assert done.returncode in ((0, 141) if reader != "true" else (141, 1 if "--help" in command else 141))


def test_output_that_has_no_place_to_go(shell, streams):
    done = shell(f"mixstream inspect {streams} > /dev/full", PYTHONUNBUFFERED="")
    assert done.returncode == 2
    assert done.stderr == "error: cannot go on: No space left on device\n"
    done = shell(f"mixstream inspect {streams} >&-")
    assert (done.returncode, done.stderr) == (0, "")


MANY = """
from mixstream.cli import app, main
from mixstream.cli.showing import table
@app.command("many")
def many() -> None:
    table(("a", "b"), [(str(i), "x" * 100) for i in range(20_000)])
main(["many"])
"""


def test_a_reader_that_leaves_in_the_middle(shell, tmp_path):
    (tmp_path / "many.py").write_text(MANY)
    done = shell(f"set -o pipefail; {sys.executable} many.py | head -n 3")
    assert (done.returncode, done.stderr) == (141, "")
    assert len(done.stdout.splitlines()) == 3


def test_a_closed_connection_elsewhere_is_told(shell, tmp_path):
    """Not every broken pipe is that of the output."""
    (tmp_path / "pipe.py").write_text(
        "from mixstream.cli import app, main\n"
        "@app.command('cut')\n"
        "def cut() -> None:\n"
        "    raise BrokenPipeError(32, 'Broken pipe')\n"
        "main(['cut'])\n"
    )
    done = shell(f"{sys.executable} pipe.py | cat; exit ${{PIPESTATUS[0]}}")
    assert done.returncode == 2
    assert "error: cannot go on: another process closed its connection" in done.stderr


def test_a_pipe_gets_everything_and_no_colours(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    table(("name", "value"), [("n" * 300, Text("1", "bold red")), ("é", "2" * 50)], spare=("value",))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"name{' ' * 341 + '  '}value"
    assert lines[1] == f"{'n' * 300}  {' ' * 49}1"
    assert lines[2] == f"é{' ' * 299}  {'2' * 50}"


def in_terminal(program: Path, arguments: list[str], **environment: str) -> tuple[str, str]:
    """Return what a program writes to a real terminal, and to a pipe as its standard error."""
    ours, its = pty.openpty()
    known = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    with subprocess.Popen(
        [program, *arguments],
        stdout=its,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        env=known | {"TERM": "xterm-256color", "LANG": "C.UTF-8", "COLUMNS": "160"} | environment,
    ) as process:
        os.close(its)
        written = b""
        while True:
            try:
                piece = os.read(ours, 1 << 16)
            except OSError:  # a terminal that the other side has closed
                break
            if not piece:
                break
            written += piece
        assert process.stderr is not None
        complaints = process.stderr.read()
    os.close(ours)
    assert process.returncode == 0, complaints
    return written.decode(), complaints


def test_a_terminal_gets_bars_and_colours_unless_told(program, streams, tmp_path):
    asked = ["plan", str(streams), "--budget-tokens", "4000", "--batch-size", "5", "--weights", "uniform"]
    asked += ["--max-repeats", "eu.tales=2", "--out", str(tmp_path / "plan.json")]
    coloured, _ = in_terminal(program, asked)
    plain, _ = in_terminal(program, asked, NO_COLOR="1")
    narrow, _ = in_terminal(program, asked, NO_COLOR="1", COLUMNS="60")
    piped = subprocess.run([program, *asked], capture_output=True, text=True, timeout=60, check=True).stdout
    assert "█" in coloured
    assert "\x1b[36m" in coloured or "\x1b[33m" in coloured
    assert not re.search(r"\x1b\[(3|4|9)\d", plain)
    assert "█" in plain
    assert "no room for budget, tokens" in narrow
    assert "no room for" not in plain
    assert "█" not in piped
    assert "\x1b" not in piped
    words = [line.split() for line in piped.splitlines()]
    assert [
        [w for w in line.split() if not set(w) <= {"█", "░"}] for line in COLOUR.sub("", plain).splitlines()
    ] == words


def test_bars_are_for_terminals(shell, streams):
    done = shell(f"mixstream verify {streams}")
    assert (done.returncode, done.stderr) == (0, "")


def test_text_that_the_encoding_lacks_is_escaped(shell, tmp_path):
    script = (
        "from mixstream.cli import app, main\napp.command('say')(lambda: print('euskara: \\u00f1'))\nmain(['say'])\n"
    )
    (tmp_path / "say.py").write_text(script)
    done = shell(f"{sys.executable} say.py", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout) == (0, "euskara: \\xf1\n")


COMPLETE = """
eval "$(mixstream completion bash)"
COMP_WORDS=({words})
COMP_CWORD={place}
_mixstream_completion mixstream
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("mixstream pl", ["plan"]),
        ("mixstream climb c", ["collect", "compare"]),
        ("mixstream plan --budg", ["--budget-tokens"]),
        ("mixstream plan diff --j", ["--json"]),
        ("mixstream completion z", ["zsh"]),
    ],
)
def test_bash_completes(shell, words, expected):
    done = shell(COMPLETE.format(words=words, place=len(words.split()) - 1))
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.split()) == expected


def test_bash_is_told_to_complete_with_file_names_else(shell):
    done = shell('eval "$(mixstream completion bash)"; complete -p mixstream')
    assert done.stdout == "complete -o default -F _mixstream_completion mixstream\n"


@pytest.mark.parametrize(("name", "told"), [("zsh", '"plan"'), ("fish", "plan")])
def test_what_other_shells_would_ask_is_answered(shell, name, told):
    """What the scripts of zsh and fish run, without these shells."""
    script = shell(f"mixstream completion {name}").stdout
    assert f"_MIXSTREAM_COMPLETE=complete_{name}" in script
    asked = {"_TYPER_COMPLETE_ARGS": "mixstream pla", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    done = shell("mixstream", _MIXSTREAM_COMPLETE=f"complete_{name}", **asked)
    assert told in done.stdout
    assert "convert" not in done.stdout


def test_help_is_quick_because_it_loads_little():
    heavy = ("numpy", "pydantic", "scipy", "yaml", "torch")
    code = f"import sys, mixstream.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_help_takes_less_than_half_a_second(program):
    """Of a processor: what a busy machine adds is not ours."""
    code = (
        "import resource, subprocess, sys\n"
        "subprocess.run([sys.argv[1], '--help'], check=True, stdout=subprocess.DEVNULL)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(used.ru_utime + used.ru_stime)\n"
    )
    taken = [float(subprocess.check_output([sys.executable, "-c", code, program])) for _ in range(3)]
    assert min(taken) < 0.5


def test_help_cuts_no_sentence_off(call):
    code, out, _ = call("--help")
    assert code == 0
    assert "..." not in out.partition("Commands:")[2]
    assert "  plan diff " in out


def test_the_version(call):
    assert call("--version")[1] == "mixstream 0.1.0\n"


def test_an_error_of_many_lines_is_told_on_one():
    assert _on_one_line("a\n  b\tc\n") == "a b c"


def test_a_missing_package_names_its_extra():
    told = r"'duckdb'; install it with pip install 'mixstream-llm\[sql\]'"
    with pytest.raises(MissingExtraError, match=told), _told_extras({"duckdb": "sql"}):
        raise ModuleNotFoundError("no", name="duckdb.something")
    with pytest.raises(ModuleNotFoundError) as passed, _told_extras({"duckdb": "sql"}):
        raise ModuleNotFoundError("no", name="other")
    assert "MissingExtra" not in "".join(traceback.format_exception(passed.value))
