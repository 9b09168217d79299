"""Shards brought from an S3 store through every fault: each sample right, each byte once, what cannot pass told at once."""

from __future__ import annotations

import json
import logging
import random
import re
import shutil
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import compress, write_stream
from servers.fixtures import Bucket
from servers.proxy import FaultProxy

from mixstream.errors import CacheError, RemoteError, ShardError
from mixstream.loader.reader import TokenReader
from mixstream.streams.cache import crew, making
from mixstream.streams.cache.agenda import Agenda
from mixstream.streams.cache.folder import CacheFolder, Entry
from mixstream.streams.cache.shards import job_of
from mixstream.streams.catalog import Catalog, Stream
from mixstream.streams.needs import Need
from mixstream.streams.remote import Patience
from mixstream.streams.store import ShardStore

QUICK = Patience(give_up_seconds=4.0, first_delay_seconds=0.01, max_delay_seconds=0.05, stall_seconds=0.4)
NAME, ROWS = "eu.tales", 40
FORMS = ("raw", "zstd", "zstd without hashes")
ALL = np.arange(ROWS)


def without_hashes(folder: Path) -> None:
    for path in folder.rglob("index.json"):
        index = json.loads(path.read_text())
        for shard in index["shards"]:
            shard["raw_data"]["hashes"] = {}
        path.write_text(json.dumps(index))


@pytest.fixture(scope="module")
def forms(tmp_path_factory) -> dict[str, Path]:
    """The same stream raw, compressed, and compressed without hashes."""
    made = {}
    for form in FORMS:
        made[form] = tmp_path_factory.mktemp("forms")
        write_stream(made[form], NAME, 3, ROWS)
        if form != "raw":
            compress(made[form])
        if form == FORMS[2]:
            without_hashes(made[form])
    return made


@pytest.fixture(scope="module")
def expected(forms) -> np.ndarray:
    return TokenReader([Catalog.open(forms["raw"])[NAME]]).tokens(0, ALL).numpy()


def opened(forms, bucket: Bucket, form: str = "raw") -> Stream:
    return Catalog.open(bucket.upload(forms[form], "run/streams"))[NAME]


def read(stream: Stream, store: ShardStore) -> np.ndarray:
    return TokenReader([stream], store).tokens(0, ALL).numpy()


@pytest.fixture
def store(tmp_path):
    made = ShardStore(tmp_path / "cache", patience=QUICK)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """A shard of these has 4 pieces or so."""
    monkeypatch.setattr(making, "PIECE_BYTES", 100)


def shards_asked(proxy: FaultProxy) -> list:
    return [record for record in proxy.log() if ".mds" in record.path and record.method == "GET"]


def sizes(stream: Stream) -> list[int]:
    index = stream.index
    return (index.compressed_bytes if index.compression else index.file_bytes).tolist()


def assert_whole(folder: Path, stream: Stream) -> None:
    found = sorted(path for path in folder.rglob("*mds*") if path.is_file())
    assert [path.name for path in found] == list(stream.index.files)
    assert [path.stat().st_size for path in found] == stream.index.file_bytes.tolist()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("piece_bytes", [8 << 20, 100, 7])
def test_each_byte_is_asked_for_once(forms, bucket, proxy, store, expected, tmp_path, monkeypatch, form, piece_bytes):
    monkeypatch.setattr(making, "PIECE_BYTES", max(piece_bytes, 40 if form == "raw" else 20))
    stream = opened(forms, bucket, form)
    proxy.clear()
    np.testing.assert_array_equal(read(stream, store), expected)
    np.testing.assert_array_equal(read(stream, store), expected)
    asked = shards_asked(proxy)
    ranges = Counter((record.path, record.range) for record in asked)
    assert set(ranges.values()) == {1}
    assert sum(record.sent for record in asked) == sum(sizes(stream))
    traffic = store.traffic()[NAME]
    assert (traffic.requests, traffic.bytes) == (len(asked), sum(sizes(stream)))
    assert (traffic.shards, traffic.faults, traffic.evicted) == (len(sizes(stream)), 0, 0)
    assert_whole(tmp_path / "cache", stream)


@pytest.mark.parametrize("form", FORMS[:2])
@pytest.mark.parametrize(
    "kind", ["latency", "reset_early", "reset", "truncate", "short", "wrong", "429", "500", "503", "stall"]
)
def test_what_can_pass_passes(forms, bucket, proxy, store, expected, tmp_path, kind, form):
    """Each shard sees the fault once, in one of its pieces."""
    stream = opened(forms, bucket, form)
    proxy.clear()
    proxy.set(fault_share=1.0, fault_kinds=(kind,), faults_by_key_once=True, fault_latency_seconds=0.2)
    np.testing.assert_array_equal(read(stream, store), expected)
    asked, traffic = shards_asked(proxy), store.traffic()[NAME]
    assert sum(record.fault == kind for record in asked) == len(sizes(stream))
    assert traffic.requests == len(asked)
    assert traffic.faults == (0 if kind == "latency" else len(sizes(stream)))
    twice = sum(sizes(stream)) if kind == "wrong" else 0  # what is found wrong at its end comes anew as a whole
    assert traffic.bytes == sum(sizes(stream)) + twice
    assert_whole(tmp_path / "cache", stream)


def test_a_request_that_breaks_off_goes_on_where_it_was(bucket, proxy, store, tmp_path, monkeypatch):
    monkeypatch.setattr(making, "PIECE_BYTES", 8 << 20)
    write_stream(tmp_path / "big", NAME, 3, 3, sequence_length=1 << 17)
    stream = Catalog.open(bucket.upload(tmp_path / "big"))[NAME]
    proxy.clear()
    proxy.set(fault_share=1.0, fault_kinds=("truncate",), faults_by_key_once=True, fault_after_bytes=700_000)
    shard = store.open_shard(stream, 0)
    np.testing.assert_array_equal(shard.read(np.arange(3))[:, :3], [[3, 0, 0], [3, 0, 1], [3, 0, 2]])
    first, second = shards_asked(proxy)
    assert first.sent == 700_000
    assert sizes(stream)[0] - 700_000 <= second.sent < sizes(stream)[0] - (1 << 18)


@pytest.mark.parametrize("kind", ["429", "503"])
def test_a_storm_passes(forms, bucket, proxy, store, expected, kind):
    stream = opened(forms, bucket)
    proxy.clear()
    proxy.set(fault_share=1.0, fault_kinds=(kind,), storm=60, max_faults=60)
    np.testing.assert_array_equal(read(stream, store), expected)
    assert store.traffic()[NAME].faults == 60


def test_many_faults_of_every_kind(forms, bucket, proxy, store, expected):
    stream = opened(forms, bucket)
    kinds = ("reset_early", "reset", "truncate", "short", "429", "500", "503", "stall", "latency")
    proxy.set(fault_share=0.3, fault_kinds=kinds, fault_latency_seconds=0.1, seed=5)
    np.testing.assert_array_equal(read(stream, store), expected)
    assert store.traffic()[NAME].faults > 2


def test_what_never_passes_is_given_up_with_what_it_was(forms, bucket, proxy, tmp_path):
    stream = opened(forms, bucket)
    proxy.set(fault_share=1.0, fault_kinds=("503",), match="00002.mds")
    patience = Patience(0.5, 0.01, 0.05, 0.4)
    store = ShardStore(tmp_path / "cache", patience=patience)
    begun = time.monotonic()
    told = rf"{bucket.url}/run/streams/{NAME}/shard.00002.mds: no progress for \d+ s in \d+ attempts, given up.*503"
    with pytest.raises(RemoteError, match=told):
        read(stream, store)
    assert time.monotonic() - begun < 5
    store.close()


@pytest.mark.parametrize("form", FORMS[:2])
def test_wrong_bytes_three_times_are_refused_with_the_url(forms, bucket, proxy, store, tmp_path, form):
    stream = opened(forms, bucket, form)
    proxy.clear()
    proxy.set(fault_share=1.0, fault_kinds=("wrong",), match="00001.mds")
    told = rf"{bucket.url}/run/streams/{NAME}/shard.00001.mds\S*: .*(xxh64 is|cannot be decomp).* \(fetched 3 times\)"
    with pytest.raises(ShardError, match=told):
        read(stream, store)
    traffic = store.traffic()[NAME]
    assert traffic.faults % 3 == 0  # a look ahead may have tried, too
    assert not list((tmp_path / "cache").rglob("shard.00001.mds"))
    proxy.set(fault_share=0.0, fault_kinds=())
    assert store.open_shard(stream, 1).num_samples == 7


@pytest.mark.parametrize(("rule", "told"), [("deny", "403"), ("missing", "no such object|404")])
def test_what_cannot_pass_ends_at_once_with_bucket_and_key(forms, bucket, proxy, store, expected, rule, told):
    stream = opened(forms, bucket)
    first = store.open_shard(stream, 0)
    proxy.clear()
    proxy.set(**{rule: "00003.mds"})
    begun = time.monotonic()
    with pytest.raises(RemoteError, match=rf"{bucket.url}/run/streams/{NAME}/shard.00003.mds: .*({told})"):
        read(stream, store)
    assert time.monotonic() - begun < 5
    assert first.num_samples == 7
    proxy.set(deny=None, missing=None)
    np.testing.assert_array_equal(read(stream, store), expected)  # it may be mended meanwhile


def test_a_bucket_that_is_closed_from_the_beginning(forms, bucket, proxy):
    url = bucket.upload(forms["raw"], "run/streams")
    proxy.set(deny="")
    begun = time.monotonic()
    with pytest.raises(RemoteError, match=rf"{url}.*403"):
        Catalog.open(url)
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("change", [-50, -250, 9])
def test_an_object_of_another_size_is_refused(forms, bucket, store, change):
    stream = opened(forms, bucket)
    whole = (forms["raw"] / NAME / "shard.00002.mds").read_bytes()
    bucket.put(f"run/streams/{NAME}/shard.00002.mds", whole[:change] if change < 0 else whole + bytes(change))
    told = rf"shard.00002.mds: ({len(whole) + change:,} bytes|has no byte [123]00), index.json says {len(whole):,}"
    with pytest.raises(ShardError, match=told):
        read(stream, store)


def test_an_object_that_is_replaced_by_another_of_its_size_is_found_by_its_hash(forms, bucket, store):
    stream = opened(forms, bucket)
    other = (forms["raw"] / NAME / "shard.00001.mds").read_bytes()
    bucket.put(f"run/streams/{NAME}/shard.00002.mds", other)
    with pytest.raises(ShardError, match=r"shard.00002.mds: its xxh64 is .*fetched 3 times"):
        read(stream, store)


def test_a_slow_drip_is_not_waited_for(forms, bucket, proxy, store, expected):
    stream = opened(forms, bucket)
    proxy.clear()
    proxy.set(fault_share=1.0, fault_kinds=("drip",), max_faults=1, drip_bytes_per_second=4.0)
    begun = time.monotonic()
    np.testing.assert_array_equal(read(stream, store), expected)
    assert time.monotonic() - begun < 10


def test_threads_of_one_store_ask_once(forms, bucket, proxy, store, expected):
    stream = opened(forms, bucket)
    proxy.clear()
    proxy.set(latency_seconds=0.05)
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: read(stream, store), range(6)))
    assert all(np.array_equal(own, expected) for own in found)
    assert sum(record.sent for record in shards_asked(proxy)) == sum(sizes(stream))


def test_stores_beside_each_other_ask_once(forms, bucket, proxy, tmp_path, expected):
    stream = opened(forms, bucket)
    proxy.clear()
    proxy.set(latency_seconds=0.05)
    stores = [ShardStore(tmp_path / "cache", patience=QUICK) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda own: read(stream, own), stores))
    assert all(np.array_equal(own, expected) for own in found)
    assert sum(record.sent for record in shards_asked(proxy)) == sum(sizes(stream))
    assert sum(own.traffic()[NAME].bytes for own in stores) == sum(sizes(stream))
    for own in stores:
        own.close()


def test_a_stall_is_told_while_it_lasts(forms, bucket, proxy, store, expected, monkeypatch, caplog):
    monkeypatch.setattr(crew, "STALL_SECONDS", 0.2)
    stream = opened(forms, bucket)
    proxy.set(fault_share=1.0, fault_kinds=("503",), match="00002.mds")
    with caplog.at_level(logging.WARNING, "mixstream"), ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read, stream, store)
        until = time.monotonic() + 10
        while not any("waiting for" in told and "503" in told for told in caplog.messages):
            assert time.monotonic() < until
            time.sleep(0.05)
        assert not reading.done()
        proxy.set(fault_share=0.0, fault_kinds=())
        np.testing.assert_array_equal(reading.result(timeout=20), expected)
    told = next(told for told in caplog.messages if "503" in told)
    assert re.search(rf"{bucket.url}/run/streams/{NAME}/shard.00002.mds since \d+ s: 0 of \d+ bytes are here; ", told)


def test_a_shard_larger_than_the_cache_is_told_at_once(forms, bucket, tmp_path):
    stream = opened(forms, bucket)
    store = ShardStore(tmp_path / "cache", cache_limit=sizes(stream)[0] - 1, patience=QUICK)
    begun = time.monotonic()
    with pytest.raises(CacheError, match=rf"has {sizes(stream)[0]} bytes, more than cache_limit="):
        store.open_shard(stream, 0)
    assert time.monotonic() - begun < 5
    store.close()


def test_a_reader_without_foresight_keeps_within_the_limit(forms, bucket, tmp_path, expected):
    """As held-out samples are read: what was asked for least lately goes."""
    stream = opened(forms, bucket)
    limit = 2 * max(sizes(stream)) + 50
    store = ShardStore(tmp_path / "cache", cache_limit=limit, patience=QUICK)
    reader = TokenReader([stream], store)
    for _ in range(2):
        for row in range(0, ROWS, 3):
            np.testing.assert_array_equal(reader.tokens(0, ALL[row : row + 3]).numpy(), expected[row : row + 3])
            used = sum(path.stat().st_size for path in (tmp_path / "cache").glob("*/*mds*"))
            assert used <= limit
    np.testing.assert_array_equal(reader.tokens(0, ALL).numpy(), expected)  # more at a time than there is room for
    reader.tokens(0, ALL[:1])
    assert len(reader._open) <= 2
    store.close()


def test_two_readers_without_foresight_leave_each_other_room(forms, bucket, tmp_path, expected):
    stream = opened(forms, bucket)
    limit = 3 * max(sizes(stream))
    stores = [ShardStore(tmp_path / "cache", cache_limit=limit, patience=QUICK) for _ in range(2)]
    readers = [TokenReader([stream], own) for own in stores]
    begun = time.monotonic()
    for row in range(0, ROWS, 7):
        for reader in readers:
            np.testing.assert_array_equal(reader.tokens(0, ALL[row : row + 7]).numpy(), expected[row : row + 7])
    assert time.monotonic() - begun < 30
    for own in stores:
        own.close()


def test_a_cache_removed_by_hand_is_made_again(forms, bucket, store, tmp_path, expected):
    stream = opened(forms, bucket)
    np.testing.assert_array_equal(read(stream, store), expected)
    shutil.rmtree(next((tmp_path / "cache").glob(f"{NAME}-*")))
    np.testing.assert_array_equal(read(stream, store), expected)


def test_a_file_in_the_place_of_a_streams_folder_is_told(forms, bucket, store, tmp_path):
    stream = opened(forms, bucket)
    store.foresee([stream], Known({}, []))
    (tmp_path / "cache" / f"{NAME}-{stream.fingerprint}").write_text("")
    with pytest.raises(CacheError, match=r"cache: cannot be written \(Not a directory\); choose a cache_dir"):
        store.open_shard(stream, 0)


def test_what_another_user_makes_is_taken_into_use_unasked(forms, bucket, store, tmp_path):
    stream = opened(forms, bucket)
    other, job = CacheFolder(tmp_path / "cache"), job_of(stream, 0)
    assert other.begin(job.entry)
    part = other.reserve_part(job.entry, job.size, iter(()))
    store.foresee([stream], Known({0: 1.0}, []))
    time.sleep(0.1)  # it has found that another makes it
    part.write_bytes((forms["raw"] / NAME / job.source[0]).read_bytes())
    other.finish(job.entry, part, job.size)
    other.close()
    until = time.monotonic() + 10
    while not store.is_here(stream, 0):
        assert time.monotonic() < until
        time.sleep(0.01)
    assert not store.traffic()[NAME].requests


class Dawdling(threading.Condition):
    """One whose lock fetching threads give back, and are then held up."""

    def __exit__(self, *raised):
        super().__exit__(*raised)
        if threading.current_thread().name == "mixstream-fetch":
            time.sleep(random.choice([0, 0, 0.08]))


def test_each_part_is_closed_once_whoever_is_held_up(forms, bucket, store, expected, monkeypatch):
    closed: Counter[Path] = Counter()
    close = making.Making.close
    monkeypatch.setattr(making.Making, "close", lambda one: (closed.update([one.part]), close(one)))
    stream = opened(forms, bucket)
    with monkeypatch.context() as patch:
        patch.setattr(threading, "Condition", Dawdling)
        store.foresee([stream], Known({}, []))  # the cache begins its work
    assert (read(stream, store) == expected).all()
    store.close()
    time.sleep(1)  # until those that were held up are done
    assert len(closed) == len(sizes(stream)) and set(closed.values()) == {1}


def test_a_damaged_copy_that_another_uses_is_told(forms, bucket, tmp_path):
    """It cannot be made anew while another has it open; it must not be tried for ever."""
    stream = opened(forms, bucket)
    one = ShardStore(tmp_path / "cache", patience=QUICK)
    one.open_shard(stream, 0)
    copy = next((tmp_path / "cache").rglob("shard.00000.mds"))
    content = bytearray(copy.read_bytes())
    content[0] ^= 1
    copy.write_bytes(content)
    two = ShardStore(tmp_path / "cache", patience=QUICK)
    with pytest.raises((ShardError, CacheError), match="shard.00000.mds"):
        two.open_shard(stream, 0)
    one.close()
    assert two.open_shard(stream, 0).num_samples == 7
    two.close()


class Known:
    """A future of one stream that is given: what comes, and when each shard is needed next."""

    def __init__(self, coming: dict[int, float], uses: list[float]) -> None:
        self.coming = coming
        self.uses = np.array(uses)

    def upcoming(self):
        return (Need(0, shard, batch, batch + 1) for shard, batch in self.coming.items())

    def next_use(self, stream):
        return self.uses


def test_what_is_needed_last_goes_and_nothing_goes_for_what_is_needed_later(forms, bucket, tmp_path):
    stream = opened(forms, bucket)
    store = ShardStore(tmp_path / "cache", cache_limit=3 * max(sizes(stream)), patience=QUICK)

    def here() -> set[int]:
        return {int(path.name[6:11]) for path in (tmp_path / "cache").rglob("*.mds")}

    def wait_for(shards: set[int]) -> None:
        until = time.monotonic() + 10
        while here() != shards:
            assert time.monotonic() < until, here()
            time.sleep(0.01)

    store.reserve("run", max(sizes(stream)), "a run")
    for shard in (0, 1, 2):
        store.open_shard(stream, shard)
    store.foresee([stream], Known({3: 1.0}, [50, 100, 7, 1, 60, np.inf]))
    wait_for({0, 2, 3})  # 1 is needed last, though asked for later than 0
    store.foresee([stream], Known({4: 60.0}, [50, 100, 7, 70, 60, np.inf]))
    wait_for({0, 2, 4})
    store.foresee([stream], Known({5: 65.0}, [50, 100, 7, 70, 60, 65]))  # nothing here is needed later
    time.sleep(0.2)
    assert here() == {0, 2, 4}
    store.open_shard(stream, 5)  # but who waits gets it
    assert here() == {0, 2, 5}
    assert store.traffic()[NAME].evicted == 3
    store.close()


def test_an_agenda_tells_what_its_first_batch_needs():
    entries = [Entry("eu.a-0", f"shard.{number:05}.mds") for number in range(4)]
    batches = (2.25, 2.75, 3.0, 7.5)
    near = {entry: (batch, None) for entry, batch in zip(entries, batches, strict=True)}
    assert Agenda(near).soonest() == set(entries[:2])
    assert Agenda().soonest() == set()


def until_here(store: ShardStore, stream: Stream, shards: range) -> None:
    until = time.monotonic() + 10
    while not all(store.is_here(stream, shard) for shard in shards):
        assert time.monotonic() < until
        time.sleep(0.01)


def test_what_the_first_batch_needs_comes_before_the_rest(forms, bucket, proxy, store):
    """Later looks bring all at a time."""
    stream = opened(forms, bucket)
    shards = range(len(stream.index.files))
    first = {stream.index.files[shard] for shard in (0, 1)}
    proxy.set(latency_seconds=0.1)
    proxy.clear()
    store.foresee([stream], Known({shard: 7 + shard / 2 for shard in shards}, []))
    until_here(store, stream, shards)
    asked = [(Path(record.path).name in first, record) for record in shards_asked(proxy)]
    ended = max(record.end for is_first, record in asked if is_first)
    rest = [record.begin for is_first, record in asked if not is_first]
    assert rest and min(rest) >= ended


def test_the_rest_comes_where_what_the_first_batch_needs_cannot(forms, bucket, proxy, store):
    stream = opened(forms, bucket)
    shards = range(len(stream.index.files))
    proxy.set(deny=stream.index.files[0])
    store.foresee([stream], Known({shard: 7.0 + shard for shard in shards}, []))
    until_here(store, stream, shards[1:])
    assert not store.is_here(stream, 0)


def test_the_rest_comes_where_another_process_brings_what_the_first_batch_needs(forms, bucket, proxy, store, tmp_path):
    """Nobody here asks for that shard, and nobody looks again."""
    stream = opened(forms, bucket)
    shards = range(len(stream.index.files))
    proxy.set(latency_seconds=0.5)
    other = ShardStore(tmp_path / "cache")
    other.expect(stream, 0)
    until = time.monotonic() + 10
    while not list((tmp_path / "cache").rglob(".*.part")):
        assert time.monotonic() < until
        time.sleep(0.005)
    proxy.set(latency_seconds=0.0)  # of requests to come
    store.foresee([stream], Known({shard: 7.0 + shard for shard in shards}, []))
    until_here(store, stream, shards)
    assert store.traffic()[NAME].shards == len(shards) - 1
    other.close()


class Endless(Known):
    """A run that reads the same again and again."""

    def upcoming(self):
        for batch in range(100_000):
            for need in super().upcoming():
                yield need._replace(batch=batch)
        raise AssertionError("looked through to the end")


def test_a_look_at_what_is_read_again_and_again_ends(forms, bucket, store):
    stream = opened(forms, bucket)
    again = store.foresee([stream], Endless(dict.fromkeys(range(len(stream.index.files)), 0.0), []))
    assert 0 < again < 100_000


def test_waits_are_counted(forms, bucket, proxy, store):
    stream = opened(forms, bucket)
    proxy.set(latency_seconds=0.05)
    assert store.waits == 0
    store.open_shard(stream, 0)
    assert store.waits == 1
    store.open_shard(stream, 0)
    assert store.waits == 1


def test_index_and_manifest_are_asked_for_at_a_time(forms, bucket, proxy):
    url = bucket.upload(forms["raw"], "run/streams")
    proxy.set(latency_seconds=0.1)
    Catalog.open(url)
    asked = {Path(record.path).name: record for record in proxy.log() if record.method == "GET"}
    assert asked["stream.json"].begin < asked["index.json"].end
