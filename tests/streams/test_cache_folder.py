"""The cache folder: an account that is never wrong for long, a limit, files of the user alone, nothing foreign touched."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mixstream.errors import CacheError
from mixstream.streams.cache.folder import CacheFolder, Entry, part_of
from mixstream.streams.cache.limit import check_cache_dir, limit_bytes
from mixstream.streams.store import ShardStore

EU, CA = "eu.a-06612241404e9d2b", "ca.b-89d7e2dda9ad845d"
ENTRIES = [Entry(EU, f"shard.{number}.mds") for number in range(5)] + [Entry(CA, "deep/shard.mds")]
SIZES = [1, 70, 100, 130, 250, 90]
SIZE_OF = dict(zip(ENTRIES, SIZES, strict=True))
LIMITS = 400, 300, None


def scan(path: Path) -> int:
    """Return the bytes of all files of shards, whole or half made."""
    files = [file for file in path.glob("*-*/**/*") if file.is_file()]
    return sum(file.stat().st_size for file in files if not file.name.startswith(".") or file.name.endswith(".part"))


def make(cache: CacheFolder, entry: Entry, victims=()) -> bool:
    """Make an entry in one go; it is in use then."""
    if not cache.begin(entry):
        return False
    part = cache.reserve_part(entry, SIZE_OF[entry], iter(victims))
    if part is None:
        cache.leave(entry)
        return False
    cache.finish(entry, part, SIZE_OF[entry])
    return True


class Account(RuleBasedStateMachine):
    """Three users of one folder, with limits of their own; what each may do at any time, in any order."""

    users = st.integers(0, len(LIMITS) - 1)
    entries = st.sampled_from(ENTRIES)

    @initialize()
    def open(self):
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "cache"
        self.caches = [CacheFolder(self.path, limit) for limit in LIMITS]
        self.using: set[tuple[int, Entry]] = set()
        self.making: dict[Entry, tuple[int, Path]] = {}
        self.by_hand = False  # somebody has removed or damaged files, and they were not counted since

    def in_use(self, entry, *, but=None):
        return [user for user, own in self.using if own == entry and user != but]

    @rule(user=users, entry=entries, victims=st.permutations(ENTRIES))
    def begin(self, user, entry, victims):
        if entry in self.making or (user, entry) in self.using:
            return  # a user never does
        cache = self.caches[user]
        if not cache.begin(entry):
            assert self.in_use(entry)
            return
        assert not self.in_use(entry)
        if cache.holds(entry, SIZE_OF[entry]):
            assert cache.use(entry, SIZE_OF[entry])
            self.using.add((user, entry))
            return
        own = [victim for victim in victims if victim not in self.making and (user, victim) not in self.using]
        before = {victim for victim in ENTRIES if cache.holds(victim, SIZE_OF[victim])}
        part = cache.reserve_part(entry, SIZE_OF[entry], iter(own))
        gone = {victim for victim in before if not cache.holds(victim, SIZE_OF[victim])}
        assert not any(self.in_use(victim) for victim in gone)
        if part is None:
            cache.leave(entry)
            assert cache.limit is not None
            left = [other for other in ENTRIES if cache.path_of(other).exists()]
            assert self.by_hand or all(
                (user, e) in self.using or self.in_use(e) or e not in cache.entries for e in left
            )
            return
        assert part.stat().st_size == SIZE_OF[entry]
        assert cache.limit is None or scan(self.path) <= cache.limit or self.by_hand
        self.making[entry] = user, part

    @precondition(lambda self: self.making)
    @rule(data=st.data(), how=st.sampled_from(["finish", "abandon"]))
    def end(self, data, how):
        entry = data.draw(st.sampled_from(sorted(self.making)))
        user, part = self.making.pop(entry)
        getattr(self.caches[user], how)(entry, part, SIZE_OF[entry])
        if how == "finish":
            self.using.add((user, entry))
        assert self.caches[user].holds(entry, SIZE_OF[entry]) == (how == "finish")
        assert not part.exists()

    @rule(user=users, entry=entries)
    def use(self, user, entry):
        if self.making.get(entry, (None,))[0] == user:
            return
        found = self.caches[user].use(entry, SIZE_OF[entry])
        assert found == (self.caches[user].holds(entry, SIZE_OF[entry]) and entry not in self.making)
        if found:
            self.using.add((user, entry))
        else:
            self.using.discard((user, entry))

    @precondition(lambda self: self.using)
    @rule(data=st.data())
    def leave(self, data):
        user, entry = data.draw(st.sampled_from(sorted(self.using)))
        self.using.discard((user, entry))
        self.caches[user].leave(entry)

    @rule(user=users, entry=entries)
    def remove(self, user, entry):
        if entry in self.making or (user, entry) in self.using:
            return
        there = self.caches[user].path_of(entry).exists() and self.caches[user].path_of(entry).stat().st_size > 0
        assert self.caches[user].remove(entry) == (there and not self.in_use(entry))

    @rule(user=users)
    def recount(self, user):
        self.caches[user].recount()
        self.by_hand = False

    @rule(entry=entries, size=st.sampled_from([None, 0, 60]))
    def break_by_hand(self, entry, size):
        path = self.path / entry.folder / entry.file
        if not path.exists() or entry in self.making:
            return
        self.by_hand = True
        path.unlink() if size is None else os.truncate(path, size)

    @rule(user=users)
    def reopen(self, user):
        """As a process that died and was started again; what it was making is a leftover."""
        self.caches[user].close()
        self.caches[user] = CacheFolder(self.path, LIMITS[user])
        self.using = {(own, entry) for own, entry in self.using if own != user}
        self.making = {entry: own for entry, own in self.making.items() if own[0] != user}
        self.by_hand = False

    @invariant()
    def the_account_is_what_a_scan_counts(self):
        if hasattr(self, "caches") and not self.by_hand:
            assert {cache.used() for cache in self.caches} == {scan(self.path)}

    @invariant()
    def what_is_in_use_or_made_is_there(self):
        if hasattr(self, "caches"):
            assert all(part.exists() for _, part in self.making.values())
            for user, entry in () if self.by_hand else self.using:
                assert self.caches[user].holds(entry, SIZE_OF[entry]) or self.broken(entry)

    def broken(self, entry):
        path = self.path / entry.folder / entry.file
        return not path.exists() or path.stat().st_size != SIZE_OF[entry]

    def teardown(self):
        if hasattr(self, "caches"):
            for cache in self.caches:
                cache.close()
            self.folder.cleanup()


TestAccount = Account.TestCase
TestAccount.settings = settings(max_examples=120, stateful_step_count=25, deadline=None)


@pytest.fixture
def opened():
    """Return what opens a cache folder, which is closed when the test is over."""
    with contextlib.ExitStack() as stack:

        def open_folder(path: Path, limit: int | None = None) -> CacheFolder:
            return stack.enter_context(contextlib.closing(CacheFolder(path, limit)))

        yield open_folder


def test_all_is_private_whatever_the_umask(opened, tmp_path):
    before = os.umask(0)
    try:
        cache = opened(tmp_path / "new" / "cache")
        assert make(cache, ENTRIES[5])
        cache.reserve("run", 10, "a plan")
    finally:
        os.umask(before)
    for path in (tmp_path / "new" / "cache", *(tmp_path / "new" / "cache").rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode & 0o077 == 0, f"{path}: {mode:o}"
        assert mode & 0o700 == (0o700 if path.is_dir() else 0o600)


def test_hidden_and_foreign_files_are_left_alone_and_not_counted(opened, tmp_path):
    cache = opened(tmp_path, 300)
    assert make(cache, ENTRIES[3])
    foreign = [tmp_path / "notes.txt", tmp_path / ".hidden" / "x.part", tmp_path / EU / ".hidden"]
    foreign += [tmp_path / ".reserved" / "README", tmp_path / ".reserved" / "a.b.c"]
    for path in foreign:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x" * 1000)
    again = opened(tmp_path, 300)
    again.reserve("run", 10, "a plan")
    assert again.used() == 130
    assert make(again, ENTRIES[4], [ENTRIES[3]]) is False  # in use by the other
    cache.leave(ENTRIES[3])
    assert make(again, ENTRIES[4], [ENTRIES[3]])
    assert all(path.read_bytes() == b"x" * 1000 for path in foreign)


def test_folders_of_others_are_never_looked_into(opened, tmp_path):
    cache = opened(tmp_path / "cache", 200)
    (tmp_path / "own").mkdir()
    (tmp_path / "cache" / "notes").mkdir()
    (tmp_path / "cache" / EU).symlink_to(tmp_path / "own")
    own = [tmp_path / folder / name for folder in ("own", "cache/notes") for name in ("a.txt", ".b.part")]
    for path in own:
        path.write_bytes(b"x" * 100)
    cache.recount()
    assert not cache.entries and cache.used() == 0
    assert make(cache, ENTRIES[5]) and all(path.exists() for path in own)


def test_a_folder_that_is_used_for_something_else_is_refused(opened, tmp_path):
    (tmp_path / "lost+found").mkdir()
    (tmp_path / EU).mkdir()  # of a cache without its locks
    opened(tmp_path).close()
    (tmp_path / "thesis").mkdir()
    opened(tmp_path).close()  # it is a cache already
    (tmp_path / ".cache").unlink()
    with pytest.raises(CacheError, match=r"holds 'thesis', which is of no cache; give a folder of its own, such as"):
        opened(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".reserved", EU, "lost+found", "thesis"]


def test_a_link_that_lies_where_a_part_goes_is_not_followed(opened, tmp_path):
    cache = opened(tmp_path / "cache")
    (tmp_path / "own").write_bytes(b"mine")
    part = part_of(cache.path_of(ENTRIES[0]))
    part.parent.mkdir()
    part.symlink_to(tmp_path / "own")
    assert make(cache, ENTRIES[0])
    assert (tmp_path / "own").read_bytes() == b"mine"


def test_victims_that_others_use_are_asked_for_once(opened, tmp_path):
    other, cache = opened(tmp_path), opened(tmp_path, 250)
    assert make(other, ENTRIES[2]) and make(other, ENTRIES[3])
    cache.recount()
    assert not make(cache, ENTRIES[1], [ENTRIES[2], ENTRIES[3]])
    assert cache.used() == 230
    other.leave(ENTRIES[2])
    assert make(cache, ENTRIES[1], [ENTRIES[3], ENTRIES[2]])
    assert cache.used() == 200


def test_a_recount_leaves_what_its_own_user_makes(opened, tmp_path):
    cache = opened(tmp_path)
    assert cache.begin(ENTRIES[2])
    part = cache.reserve_part(ENTRIES[2], 100, iter(()))
    cache.recount()
    assert part.exists() and cache.used() == 100
    assert not opened(tmp_path).begin(ENTRIES[2])
    cache.finish(ENTRIES[2], part, 100)
    assert cache.used() == 100 == scan(tmp_path)


def test_a_part_of_one_who_died_meanwhile_is_counted_once(opened, tmp_path):
    dead, cache = opened(tmp_path), opened(tmp_path, 150)
    assert dead.begin(ENTRIES[2])
    dead.reserve_part(ENTRIES[2], 100, iter(()))
    dead.close()
    assert make(cache, ENTRIES[2])
    assert cache.used() == 100


def test_an_entry_of_another_size_gives_its_bytes_back(opened, tmp_path):
    cache = opened(tmp_path, 130)
    cache.path_of(ENTRIES[3]).parent.mkdir()
    cache.path_of(ENTRIES[3]).write_bytes(b"x" * 120)
    cache.recount()
    assert not cache.use(ENTRIES[3], 130)
    assert make(cache, ENTRIES[3])
    assert cache.used() == 130


HOLDS = """
import sys
import tempfile
from pathlib import Path
from mixstream.streams.cache.folder import CacheFolder

cache = CacheFolder(Path(sys.argv[1]), 1000)
cache.reserve("other", 600, "a plan")
print("reserved", flush=True)
sys.stdin.read()
"""


def test_reservations_add_up_and_die_with_their_process(opened, tmp_path):
    cache, twin = opened(tmp_path, 1000), opened(tmp_path, 1000)
    command = [sys.executable, "-c", HOLDS, tmp_path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout.readline() == b"reserved\n"
            told = (
                r"cache_limit=1,000 bytes, but a plan of 3 streams needs 401 bytes at a time and 600 bytes are "
                r"reserved by others .*; give a cache_limit of 1,001 bytes or more, or plan with a smaller window"
            )
            with pytest.raises(CacheError, match=told):
                cache.reserve("run", 401, "a plan of 3 streams")
            cache.reserve("run", 400, "a plan of 3 streams")
            twin.reserve("run", 400, "the same plan")  # reads the same: counts once
            with pytest.raises(CacheError, match="needs 1 bytes at a time and 1,000 bytes are reserved"):
                opened(tmp_path, 1000).reserve("third", 1, "it")
        finally:
            other.kill()
    third = opened(tmp_path, 1000)
    third.reserve("third", 600, "it")
    for own in (third, twin, cache):
        own.close()
    opened(tmp_path, 1000).reserve("fourth", 1000, "it")
    assert [path.name.partition(".")[0] for path in (tmp_path / ".reserved").iterdir()] == ["fourth"]


def test_a_limit_below_what_is_needed_is_refused_with_the_one_that_works(opened, tmp_path):
    told = r"cache_limit=99 bytes, but it needs 100 bytes at a time; give a cache_limit of 100 bytes or more"
    with pytest.raises(CacheError, match=told):
        opened(tmp_path, 99).reserve("run", 100, "it")
    opened(tmp_path, 100).reserve("run", 100, "it")
    opened(tmp_path, None).reserve("run", 10**15, "it")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (None, None),
        (1, 1),
        ("1", 1),
        ("200 GB", 200 * 10**9),
        ("64 GiB", 64 << 30),
        ("0.5kb", 500),
        ("1.5 TiB", 3 << 39),
        ("1_000_000 b", 10**6),
        ("1,500.5 kB", 1_500_500),
        (" 7 mb ", 7 * 10**6),
        ("2PB", 2 * 10**15),
        ("0.1 GB", 10**8),
    ],
)
def test_limits_in_words(text, size):
    assert limit_bytes(text) == size


@pytest.mark.parametrize(
    "text",
    [
        0,
        -1,
        "",
        "0 GB",
        "-3 GB",
        "1e9",
        "GB",
        "5 XB",
        "1.5.2 GB",
        "nan",
        True,
        "0.1",
        "10 GB 3",
        "٣ GB",
        "1,5 GB",
        "1,50",
        ",500",
    ],
)
def test_limits_that_are_none(text):
    with pytest.raises(CacheError, match=rf"cache_limit={re.escape(repr(text))}; expected bytes above 0.*'200 GB'"):
        limit_bytes(text)


def test_folders_that_are_none():
    assert check_cache_dir("c") == Path("c")
    with pytest.raises(CacheError, match=r"cache_dir='s3://b/c': a cache is a folder of this machine, not a URL"):
        check_cache_dir("s3://b/c")
    with pytest.raises(CacheError, match=r"cache_dir='': names no folder; give one of a disk of this machine"):
        ShardStore("")


def test_a_folder_that_cannot_be_written_is_told(opened, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match=r"file/x: cannot be written \(Not a directory\); choose a cache_dir that can"):
        opened(tmp_path / "file" / "x")
    cache = opened(tmp_path / "cache")
    (tmp_path / "cache" / ENTRIES[0].folder).write_text("in the way")
    with pytest.raises(CacheError, match=r"cannot be written \d+ bytes more \((File exists|Not a directory)\)"):
        make(cache, ENTRIES[0])
    assert cache.used() == 0


FULL = """
import resource, sys
from pathlib import Path
from mixstream.errors import CacheError
from mixstream.streams.cache.folder import CacheFolder, Entry

cache = CacheFolder(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
assert cache.begin(Entry("eu.a-0", "x"))
try:
    cache.reserve_part(Entry("eu.a-0", "x"), 501, iter(()))
except CacheError as problem:
    print(problem, cache.used())
"""


def test_a_full_disk_is_told_before_a_byte_is_fetched(tmp_path):
    done = subprocess.run([sys.executable, "-c", FULL, tmp_path], capture_output=True, text=True, timeout=60)
    told = r"cannot be written 501 bytes more \(File too large\); choose a cache_dir with more room, .* 0\n"
    assert re.search(told, done.stdout), done.stdout + done.stderr
    assert scan(tmp_path) == 0
