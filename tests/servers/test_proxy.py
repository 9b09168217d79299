"""The proxy that other tests rely on: each fault is really seen by a client, speeds hold, counts are exact."""

from __future__ import annotations

import http.client
import time
from collections import Counter
from contextlib import closing
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from .faults import KINDS, Faults, Pace, Settings, flipped
from .fixtures import Bucket
from .plain import DATA, at_once, fetch, seconds
from .proxy import FaultProxy, fault_proxy
from .s3 import S3Server


@pytest.fixture
def path(bucket: Bucket) -> str:
    """The path of an object that holds DATA."""
    bucket.put("some/key.bin", DATA)
    return f"/{bucket.name}/some/key.bin"


def fails(proxy: FaultProxy, kind: str, **settings: object) -> None:
    proxy.set(fault_share=1.0, fault_kinds=(kind,), **settings)


class TestFaults:
    def test_reset_in_the_body(self, proxy: FaultProxy, path: str) -> None:
        fails(proxy, "reset")
        with pytest.raises(ConnectionResetError) as seen:
            fetch(proxy.endpoint, path)
        assert (
            type(seen.value) is ConnectionResetError
        )  # RST, which is not the silent end that http.client has a name for
        assert [(r.status, r.sent, r.fault) for r in proxy.log()] == [(200, len(DATA) // 2, "reset")]

    def test_reset_before_the_answer(self, proxy: FaultProxy, path: str) -> None:
        fails(proxy, "reset_early")
        with pytest.raises(ConnectionResetError) as seen:
            fetch(proxy.endpoint, path)
        assert type(seen.value) is ConnectionResetError
        assert [(r.status, r.sent, r.fault) for r in proxy.log()] == [(0, 0, "reset_early")]

    def test_truncated(self, proxy: FaultProxy, path: str) -> None:
        fails(proxy, "truncate", fault_after_bytes=1000)
        with pytest.raises(http.client.IncompleteRead) as seen:
            fetch(proxy.endpoint, path)
        assert seen.value.partial == DATA[:1000]
        assert seen.value.expected == len(DATA) - 1000

    def test_short(self, proxy: FaultProxy, path: str) -> None:
        fails(proxy, "short")
        assert fetch(proxy.endpoint, path).body == DATA[: len(DATA) // 2]

    @pytest.mark.parametrize("cache", [False, True])
    def test_wrong(self, proxy: FaultProxy, path: str, cache: bool) -> None:
        fails(proxy, "wrong", cache=cache, max_faults=1)
        body = fetch(proxy.endpoint, path).body
        assert len(body) == len(DATA)
        assert 1 <= sum(a != b for a, b in zip(body, DATA, strict=True)) <= 3
        assert fetch(proxy.endpoint, path).body == DATA

    @pytest.mark.parametrize(
        ("kind", "code"), [("429", b"TooManyRequests"), ("500", b"InternalError"), ("503", b"SlowDown")]
    )
    def test_statuses_in_storms(self, proxy: FaultProxy, path: str, kind: str, code: bytes) -> None:
        fails(proxy, kind, storm=3, max_faults=3)
        seen = [fetch(proxy.endpoint, path) for _ in range(4)]
        assert [s.status for s in seen] == [int(kind)] * 3 + [200]
        assert b"<Code>" + code + b"</Code>" in seen[0].body
        assert [r.fault for r in proxy.log()] == [kind] * 3 + [None]

    def test_drip(self, proxy: FaultProxy, path: str) -> None:
        fails(proxy, "drip", drip_bytes_per_second=50.0)
        assert 0.3 < seconds(lambda: fetch(proxy.endpoint, path, asked="bytes=0-19")) < 2
        with closing(http.client.HTTPConnection(urlsplit(proxy.endpoint).netloc, timeout=5)) as connection:
            connection.request("GET", path)
            with connection.getresponse() as answer:
                assert answer.read(5) == DATA[:5]
        assert proxy.log()[-1].sent < 100

    def test_stall_until_the_client_gives_up(self, proxy: FaultProxy, path: str) -> None:
        fails(proxy, "stall", fault_after_bytes=100)
        with pytest.raises(TimeoutError):
            fetch(proxy.endpoint, path, timeout=0.3)
        stalled = proxy.log()[0]
        assert (stalled.status, stalled.sent, stalled.fault) == (200, 100, "stall")
        assert stalled.end is not None
        assert 0.25 < stalled.end - stalled.begin < 3

    def test_latency(self, proxy: FaultProxy, path: str) -> None:
        fails(proxy, "latency", fault_latency_seconds=0.4)
        assert 0.4 <= seconds(lambda: fetch(proxy.endpoint, path)) < 2

    def test_rules(self, proxy: FaultProxy, path: str) -> None:
        proxy.set(deny=r"/some/key\.bin$", missing="gone", redirect=("moved", "http://127.0.0.2:1{path}"))
        assert [fetch(proxy.endpoint, path).status for _ in range(3)] == [403] * 3
        assert b"<Code>AccessDenied</Code>" in fetch(proxy.endpoint, path).body
        assert fetch(proxy.endpoint, path, method="HEAD").status == 403
        assert fetch(proxy.endpoint, "/b/gone").status == 404
        moved = fetch(proxy.endpoint, "/b/moved?x=1")
        assert (moved.status, moved.headers["location"]) == (307, "http://127.0.0.2:1/b/moved?x=1")
        assert [r.fault for r in proxy.log()] == ["deny"] * 5 + ["missing", "redirect"]

    def test_what_does_not_match_is_left_alone(self, proxy: FaultProxy, bucket: Bucket, path: str) -> None:
        fails(proxy, "503", match=r"\.mds$")
        assert fetch(proxy.endpoint, path).body == DATA
        fails(proxy, "503", match="")
        assert fetch(proxy.endpoint, f"/{bucket.name}?list-type=2").status != 503
        assert fetch(proxy.endpoint, path, method="HEAD").status == 200
        fails(proxy, "503", listings=True)
        assert fetch(proxy.endpoint, f"/{bucket.name}?list-type=2").status == 503

    def test_no_body_no_fault(self, proxy: FaultProxy, path: str) -> None:
        fails(proxy, "truncate", max_faults=1)
        assert fetch(proxy.endpoint, path + "-not-there").status == 404
        assert proxy.log()[0].fault is None
        with pytest.raises(http.client.IncompleteRead):  # the one fault was not used up
            fetch(proxy.endpoint, path)

    def test_unknown_faults_are_refused(self, proxy: FaultProxy) -> None:
        with pytest.raises(ValueError, match=r"no such faults: \['flood'\]; there are reset_early, 429"):
            proxy.set(fault_kinds=("flood",))
        with pytest.raises(ValueError, match=r"fault_share=0.5 needs fault_kinds"):
            proxy.set(fault_share=0.5)


class TestSpeed:
    def test_latency(self, proxy: FaultProxy, path: str) -> None:
        fetch(proxy.endpoint, path)
        proxy.set(latency_seconds=0.2, cache=True)
        assert 0.2 <= seconds(lambda: fetch(proxy.endpoint, path)) < 1.5

    def test_a_connection(self, proxy: FaultProxy, path: str) -> None:
        proxy.set(connection_bytes_per_second=len(DATA) / 0.5, cache=True)
        fetch(proxy.endpoint, path)
        for taken in at_once(*[lambda: fetch(proxy.endpoint, path)] * 2):  # each has its own speed
            assert 0.45 < taken < 2.5

    def test_small_bodies_are_as_slow_as_large_ones(self, proxy: FaultProxy, path: str) -> None:
        """What a connection did not send while it waited is lost: 20 bodies of 25 ms take half a second."""
        proxy.set(connection_bytes_per_second=len(DATA) / 0.5, cache=True)
        with closing(http.client.HTTPConnection(urlsplit(proxy.endpoint).netloc, timeout=10)) as connection:

            def read() -> None:
                connection.request("GET", path, headers={"Range": f"bytes=0-{len(DATA) // 20 - 1}"})
                with connection.getresponse() as answer:
                    assert len(answer.read()) == len(DATA) // 20

            read()
            taken = 0.0
            for _ in range(20):
                time.sleep(0.01)
                taken += seconds(read)
        assert 0.45 < taken < 2.5

    def test_the_link_is_shared_fairly(self, proxy: FaultProxy, path: str) -> None:
        proxy.set(cache=True)
        fetch(proxy.endpoint, path)
        proxy.set(link_bytes_per_second=4 * len(DATA))
        taken = at_once(*[lambda: fetch(proxy.endpoint, path)] * 4)
        assert 0.9 < max(taken) < 4.0
        assert min(taken) > 0.6 * max(taken)

    @given(
        st.lists(st.tuples(st.integers(1, 1000), st.floats(0, 3)), min_size=1, max_size=50),
        st.floats(100, 10_000),
    )
    def test_no_interval_carries_more_than_the_rate(self, turns: list[tuple[int, float]], rate: float) -> None:
        """Bytes pass one after another: between the ends of any two turns the way carried at most its rate."""
        pace, now, ends = Pace(), 10.0, [10.0]
        for size, wait in turns:
            now += wait
            ends.append(pace.turn(size, rate, now))
        sizes = [size for size, _ in turns]
        for end, before, size in zip(ends[1:], ends[:-1], sizes, strict=True):
            assert end - before >= size / rate - 1e-6


class TestCounting:
    def test_every_request_and_byte_is_in_the_log(self, proxy: FaultProxy, bucket: Bucket, path: str) -> None:
        def reader() -> None:
            with closing(http.client.HTTPConnection(urlsplit(proxy.endpoint).netloc, timeout=10)) as connection:
                for i in range(25):
                    connection.request("GET", path, headers={"Range": f"bytes={i}-{2 * i}"})
                    with connection.getresponse() as answer:
                        assert answer.read() == DATA[i : 2 * i + 1]

        begin = time.monotonic()
        at_once(*[reader] * 4)
        log = proxy.log()
        assert Counter(r.range for r in log) == {f"bytes={i}-{2 * i}": 4 for i in range(25)}
        assert all(r.status == 206 and r.path == path and r.method == "GET" and r.fault is None for r in log)
        assert sum(r.sent for r in log) == 4 * sum(i + 1 for i in range(25))
        assert Counter(r.connection for r in log) == dict.fromkeys({r.connection for r in log}, 25)
        assert len({r.connection for r in log}) == 4
        assert all(r.end is not None and begin <= r.begin <= r.end <= time.monotonic() for r in log)
        proxy.clear()
        assert proxy.log() == []

    def test_aws_client_reads_and_writes_through_it(self, proxy: FaultProxy, bucket: Bucket) -> None:
        import boto3

        with closing(boto3.client("s3")) as client:
            client.put_object(Bucket=bucket.name, Key="a b+ç", Body=DATA)
            assert client.get_object(Bucket=bucket.name, Key="a b+ç")["Body"].read() == DATA
        assert [(r.method, r.path, r.sent) for r in proxy.log()] == [
            ("PUT", f"/{bucket.name}/a b+ç", 0),
            ("GET", f"/{bucket.name}/a b+ç", len(DATA)),
        ]
        assert bucket.keys() == {"a b+ç": len(DATA)}

    def test_obstore_goes_through_it_and_tries_again(self, proxy: FaultProxy, bucket: Bucket) -> None:
        store = pytest.importorskip("obstore.store").S3Store(bucket.name, client_options={"allow_http": True})
        store.put("whole", DATA)
        store.put("parts", DATA * 45)  # above obstore's size for uploads in parts
        assert bytes(store.get("parts").bytes()) == DATA * 45
        assert sorted(meta["path"] for page in store.list() for meta in page) == ["parts", "whole"]
        proxy.clear()
        proxy.set(fault_share=1.0, fault_kinds=("503",), storm=2, max_faults=2)
        assert bytes(store.get_range("whole", start=10, end=500)) == DATA[10:500]
        assert [(r.range, r.status) for r in proxy.log()] == [("bytes=10-499", s) for s in (503, 503, 206)]


class TestCache:
    @pytest.mark.parametrize(
        "asked", [None, "bytes=0-0", "bytes=5-1000", "bytes=255999-", "bytes=-7", "bytes=-999999", "bytes=10-999999"]
    )
    def test_answers_as_the_server_does(self, s3: S3Server, proxy: FaultProxy, path: str, asked: str | None) -> None:
        proxy.set(cache=True)
        for _ in range(2):
            seen, real = fetch(proxy.endpoint, path, asked=asked), fetch(s3.endpoint, path, asked=asked)
            assert (seen.status, seen.body) == (real.status, real.body)
            for name in ("content-range", "etag", "last-modified", "content-length"):
                assert seen.headers.get(name) == real.headers.get(name), name

    def test_beyond_the_end(self, proxy: FaultProxy, path: str) -> None:
        proxy.set(cache=True)
        assert fetch(proxy.endpoint, path, asked=f"bytes={len(DATA)}-").status == 416

    def test_asks_the_server_once(self, s3: S3Server, path: str) -> None:
        with fault_proxy(s3.endpoint) as behind, fault_proxy(behind.endpoint, cache=True) as proxy:
            at_once(*[lambda: fetch(proxy.endpoint, path, asked="bytes=3-9")] * 4)
            assert [(r.method, r.range, r.sent) for r in behind.log()] == [("GET", None, len(DATA))]
            assert [r.sent for r in proxy.log()] == [7] * 4

    def test_what_is_written_anew_is_read_anew(self, proxy: FaultProxy, bucket: Bucket) -> None:
        import boto3

        proxy.set(cache=True)
        with closing(boto3.client("s3")) as client:
            for body in (b"one", b"another"):
                client.put_object(Bucket=bucket.name, Key="k", Body=body)
                assert client.get_object(Bucket=bucket.name, Key="k")["Body"].read() == body


class TestChoice:
    @given(st.integers(0, 9), st.permutations([f"/b/{i % 5}" for i in range(20)]))
    def test_depends_on_the_path_and_the_visit_only(self, seed: int, order: list[str]) -> None:
        settings = Settings(fault_share=0.5, fault_kinds=KINDS, seed=seed)

        def chosen(paths: list[str]) -> dict[str, list[str | None]]:
            faults, found = Faults(), {}
            for path in paths:
                found.setdefault(path, []).append(faults.choose(settings, "GET", path, ""))
            return found

        assert chosen(order) == chosen(sorted(order))

    @given(st.integers(0, 9), st.integers(0, 30))
    def test_each_kind_once_a_key_and_no_more_than_allowed(self, seed: int, most: int) -> None:
        settings = Settings(fault_share=0.8, fault_kinds=KINDS, seed=seed, faults_by_key_once=True, max_faults=most)
        faults = Faults()
        given_to = Counter((i % 3, faults.choose(settings, "GET", f"/b/{i % 3}", "")) for i in range(150))
        found = {key: count for key, count in given_to.items() if key[1]}
        assert set(found.values()) <= {1}
        assert len(found) == min(most, 3 * len(KINDS))

    def test_the_share_holds(self) -> None:
        settings = Settings(fault_share=0.05, fault_kinds=KINDS)
        faults = Faults()
        found = Counter(faults.choose(settings, "GET", f"/b/shard.{i:05}.mds", "") for i in range(4000))
        assert set(found) == {None, *KINDS}
        assert 150 < 4000 - found[None] < 250

    @given(st.binary(max_size=50), st.integers(0, 40), st.sets(st.integers(0, 99), max_size=5))
    def test_only_these_bytes_are_flipped(self, data: bytes, offset: int, places: set[int]) -> None:
        found = flipped(data, offset, places)
        assert len(found) == len(data)
        differing = {offset + i for i, (a, b) in enumerate(zip(found, data, strict=True)) if a != b}
        assert differing == {place for place in places if offset <= place < offset + len(data)}
