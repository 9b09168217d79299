"""Locks by name: who shares, who has alone, in one process and in several; the dead have none."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixstream.streams.cache.locks import NamedLocks

OWNER = """
import sys
from pathlib import Path
from mixstream.streams.cache.locks import NamedLocks

locks = NamedLocks(Path(sys.argv[1]))
for line in sys.stdin:
    how, *names = line.split()
    print(int(getattr(locks, how)(*names) or 0), flush=True)
"""


class Elsewhere:
    """An owner in another process."""

    def __init__(self, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWNER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, how: str, name: str = "") -> bool:
        self.process.stdin.write(f"{how} {name}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline() == "1\n"

    def kill(self) -> None:
        with self.process:
            self.process.send_signal(signal.SIGKILL)


@pytest.fixture
def elsewhere(tmp_path):
    owner = Elsewhere(tmp_path / "locks")
    yield owner
    owner.kill()


def test_the_file_is_the_users_alone(tmp_path):
    before = os.umask(0)
    try:
        NamedLocks(tmp_path / "locks").close()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "locks").stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["a", "stream-0f/shard.00000.mds", "x" * 300, "eu/ü\n"])
def test_two_owners_in_one_process(tmp_path, name):
    one, two = NamedLocks(tmp_path / "locks"), NamedLocks(tmp_path / "locks")
    assert one.share(name) and two.share(name)
    assert not one.seize(name)  # shared by the other, and it keeps its own
    two.release(name)
    assert one.seize(name)
    assert not two.share(name) and not two.seize(name)
    assert two.seize(name + "'")  # another name is another lock
    assert one.share(name) and two.share(name)  # turned back without a gap
    one.close()
    assert two.seize(name)
    two.close()


def test_a_lock_that_could_not_be_turned_is_still_held(tmp_path):
    one, two, three = (NamedLocks(tmp_path / "locks") for _ in range(3))
    assert one.share("a") and two.share("a")
    assert not one.seize("a")
    two.release("a")
    assert not three.seize("a")
    one.release("a")
    one.release("a")  # nothing happens
    assert three.seize("a")


def test_another_process_sees_them_and_drops_its_own_at_kill_9(tmp_path, elsewhere):
    here = NamedLocks(tmp_path / "locks")
    assert elsewhere.ask("seize", "a") and elsewhere.ask("share", "b")
    assert not here.share("a") and here.share("b") and not here.seize("b")
    assert here.seize("c") and not elsewhere.ask("share", "c")
    elsewhere.ask("seize_all")
    elsewhere.kill()
    assert here.seize("a") and here.seize("b")
    here.seize_all()  # returns
    here.release_all()
    assert here.seize("a")


def test_a_file_that_is_opened_and_closed_again_costs_no_lock(tmp_path):
    """As POSIX locks would, of which any close of the file drops all of the process."""
    one, two = NamedLocks(tmp_path / "locks"), NamedLocks(tmp_path / "locks")
    assert one.seize("a")
    (tmp_path / "locks").read_bytes()
    NamedLocks(tmp_path / "locks").close()
    assert not two.share("a")


def test_after_close_its_number_is_not_used(tmp_path):
    locks = NamedLocks(tmp_path / "locks")
    locks.close()
    with (tmp_path / "other").open("wb") as other:  # gets the number
        with pytest.raises((OSError, ValueError)):
            locks.seize("a")
        assert other.fileno() >= 0


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from("ab"), st.sampled_from(["share", "seize", "release"]))))
def test_owners_and_names_follow_the_rules_of_readers_and_writers(tmp_path_factory, steps):
    path = tmp_path_factory.mktemp("locks") / "locks"
    owners = [NamedLocks(path) for _ in range(3)]
    held: dict[tuple[int, str], str] = {}
    for owner, name, how in steps:
        others = [kind for (other, own), kind in held.items() if other != owner and own == name]
        done = getattr(owners[owner], how)(name)
        if how == "release":
            held.pop((owner, name), None)
            continue
        assert done == ("seize" not in others if how == "share" else not others)
        if done:
            held[owner, name] = how
    for own in owners:
        own.close()
