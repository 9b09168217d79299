"""Runs that are killed, hindered or disturbed, and started again: the bytes of one go, nothing done twice, nothing left."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from converting import convert, files_of, write_lines
from processes import children_of, is_alive, run, started, wait_until

from converters.tasks.hashing import check_unchanged, sources_of
from mixstream import Catalog
from mixstream.errors import CorpusError, ShardError, StreamError

SIZES = {"sequence_length": 64, "holdout": 0.1, "span_bytes": 4096, "shard_bytes": 4096, "deduplicate": True}
OPTIONS = [
    word
    for name, value in SIZES.items()
    for word in ([f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)]))
]


def write_many(folder: Path, count: int = 3000) -> Path:
    """Write a corpus of two files, a fifth of whose texts are there twice."""
    rows = [{"text": f"{i % (4 * count // 5)} testua " * 12, "id": str(i)} for i in range(count)]
    write_lines(folder / "eu.a" / "0.jsonl", rows[: count // 2])
    write_lines(folder / "eu.a" / "1.jsonl", rows[count // 2 :])
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return write_many(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def in_one_go(corpus, tmp_path_factory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("one-go")
    convert([corpus], out, **SIZES)
    assert len(files_of(out)) > 100
    return files_of(out)


def stamps(out: Path, pattern: str = "parts/*.json") -> dict[Path, tuple[int, int]]:
    """Return of files of the work folder which they are: what is whole is never written again."""
    found = {}
    for path in out.glob(f".mixstream-eu.a/{pattern}"):
        if not path.name.startswith("."):
            told = path.stat()
            found[path] = (told.st_ino, told.st_mtime_ns)
    return found


def check_no_half_stream(out: Path, whole: dict[str, bytes]) -> None:
    """What is there under a stream's name is all of the stream."""
    if (out / "eu.a").exists():
        assert Catalog.open(out).names == ("eu.a",)
        assert {name: own for name, own in files_of(out).items() if name.startswith("eu.a/")} == whole
    else:
        with pytest.raises(StreamError):
            Catalog.open(out)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_that_is_killed_goes_on(corpus, in_one_go, tmp_path, workers):
    """kill -9 of the process at any moment; its workers end with it; the next run takes what is whole as it is."""
    chance = random.Random(workers)
    out = tmp_path / "out"
    last: dict[Path, tuple[int, int]] = {}
    for pattern in ("parts/*.json",) * 3 + ("*/shards/*/*.json",) * 2:
        with started(corpus, "--out", out, *OPTIONS, "--workers", workers) as process:
            moment = len(stamps(out, pattern)) + chance.randrange(1, 25)
            wait_until(lambda: len(stamps(out, pattern)) >= moment or process.poll() is not None)  # noqa: B023
            if process.poll() is not None:
                break  # it was quicker
            workers_of_it = children_of(process.pid)
            assert len(workers_of_it) == workers
            process.send_signal(signal.SIGKILL)
            process.wait(10)
            wait_until(lambda: not any(map(is_alive, workers_of_it)), 5)  # noqa: B023
        check_no_half_stream(out, in_one_go)
        now = stamps(out) | stamps(out, "*/shards/*/*.json")
        assert len(now) > len(last)
        assert now.items() >= last.items()
        last = now
    done = run(corpus, "--out", out, *OPTIONS, "--workers", workers)
    assert done.returncode == 0, done.stderr
    assert files_of(out) == in_one_go
    assert [path.name for path in out.iterdir()] == ["eu.a"]


def test_what_is_whole_is_not_made_again(corpus, in_one_go, tmp_path, monkeypatch):
    """Stopped at every stage: each part, each shard is written once in all."""
    import converters.tasks.cut
    import converters.tasks.encode

    out = tmp_path / "out"
    written: list[str] = []
    encode, write_shard = converters.tasks.encode._encode, converters.tasks.cut.write_shard
    budget = [0]

    def spend(what: str) -> None:
        if not budget[0]:
            raise KeyboardInterrupt
        budget[0] -= 1
        written.append(what)

    def encode_once(task, tokenizer):
        spend(task.path)
        return encode(task, tokenizer)

    def write_once(directory, number, *arguments):
        spend(f"{directory} {number}")
        return write_shard(directory, number, *arguments)

    monkeypatch.setattr("converters.tasks.encode._encode", encode_once)
    monkeypatch.setattr("converters.tasks.cut.write_shard", write_once)
    stops = 0
    while True:
        budget[0] = 40
        try:
            convert([corpus], out, **SIZES)
            break
        except KeyboardInterrupt:
            stops += 1
            check_no_half_stream(out, in_one_go)
    assert stops > 5
    assert len(written) == len(set(written)) > 200
    assert files_of(out) == in_one_go


def test_what_a_machine_that_stopped_has_left_is_made_again(corpus, in_one_go, tmp_path, monkeypatch):
    """Files that are empty, or shorter than they were said to be; and temporary ones, which go."""
    out = tmp_path / "out"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("converters.writing.put_in_place", interrupt)
        convert([corpus], out, **SIZES)
    work = out / ".mixstream-eu.a"
    for pattern in ("parts/*.json", "*/shards/*/*.json"):
        sorted(work.glob(pattern))[1].write_text("")
    for pattern in ("parts/*.tokens", "parts/*.documents", "*/made/eu.a/*.mds"):
        path = sorted(work.glob(pattern))[3]
        path.write_bytes(path.read_bytes()[:-1])
    for place in ("parts/.x.tmp-1-ab.tokens", *(f"{own.name}/.y.tmp-2-cd" for own in work.glob("*") if own.is_dir())):
        (work / place).write_text("half")
    seen: list[list[Path]] = []
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(
            "converters.encoding.find_duplicates", lambda task: interrupt(seen.append([*work.rglob(".*.tmp-*")]))
        )
        for found in work.glob("*/unique/*.found"):
            found.unlink()
        convert([corpus], out, **SIZES)
    assert seen == [[]]
    convert([corpus], out, **SIZES)
    assert files_of(out) == in_one_go


def interrupt(*arguments: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("workers", [0, 2])
def test_a_full_disk(corpus, in_one_go, tmp_path, workers):
    """On a disk of its own, of half the room that it takes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=700k", "none", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted: {mounted.stderr.decode().strip()}")
    try:
        done = run(corpus, "--out", disk / "out", *OPTIONS, "--workers", workers)
        assert done.returncode == 2
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
        assert str(disk / "out") in line
        assert "No space left on device" in line
        assert "run the same command again" in line or "make room there" in line
        assert "Traceback" not in done.stdout + done.stderr
        check_no_half_stream(disk / "out", in_one_go)
        parts = len(stamps(disk / "out"))
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True, capture_output=True)
        done = run(corpus, "--out", disk / "out", *OPTIONS, "--workers", workers)
        assert done.returncode == 0, done.stderr
        assert parts
        assert files_of(disk / "out") == in_one_go
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("limit", [3000, 3900, 40_000])
def test_files_that_may_not_be_so_large(corpus, in_one_go, tmp_path, limit):
    """Whatever is the first to be too large: part, shard, or table of documents."""
    out = tmp_path / "out"

    def lower() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = run(corpus, "--out", out, *OPTIONS, "--workers", 0, preexec_fn=lower)
    assert done.returncode == 2
    assert f"error: {out}" in done.stderr
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    check_no_half_stream(out, in_one_go)
    convert([corpus], out, **SIZES)
    assert files_of(out) == in_one_go


def test_two_runs_at_the_same_time(corpus, in_one_go, tmp_path):
    """Of the same corpus the second one is refused; of another one it is welcome."""
    out = tmp_path / "out"
    shutil.copytree(corpus / "eu.a", tmp_path / "other" / "eu.b")
    with started(corpus, "--out", out, *OPTIONS, "--workers", 0) as process:
        wait_until((out / ".mixstream-eu.a" / "lock").exists)
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(
            StreamError, match=r"out: another process converts eu.a to there at this moment; wait for it"
        ):
            convert([corpus], out, **SIZES)
        convert([tmp_path / "other"], out, **SIZES)
        process.send_signal(signal.SIGCONT)
        _, complaints = process.communicate(timeout=60)
        assert process.returncode == 0, complaints
    assert sorted(path.name for path in out.iterdir()) == ["eu.a", "eu.b"]
    assert {name: own for name, own in files_of(out).items() if name.startswith("eu.a")} == in_one_go
    shards = {name[5:]: own for name, own in files_of(out).items() if name.startswith("eu.b") and "json" not in name}
    assert shards == {name[5:]: own for name, own in in_one_go.items() if "json" not in name}


def test_a_source_that_changes_meanwhile(tmp_path, monkeypatch):
    """Is told of, and read anew the next time, alone."""
    folder, out = write_many(tmp_path / "in", 400), tmp_path / "out"
    path = folder / "eu.a" / "1.jsonl"
    encoded: list[str] = []
    import converters.tasks.encode

    encode = converters.tasks.encode._encode

    def change_then_encode(task, tokenizer):
        if not encoded and path.stat().st_size == size:
            path.write_text(path.read_text() + '{"text": "berandu", "id": "berandu"}\n')
        part = encode(task, tokenizer)
        encoded.append(task.file.name)
        return part

    size = path.stat().st_size
    monkeypatch.setattr("converters.tasks.encode._encode", change_then_encode)
    with pytest.raises(CorpusError, match=r"eu.a/1.jsonl: was changed .*convert again"):
        convert([folder], out, **SIZES)
    assert set(encoded) == {"eu.a/0.jsonl"}
    assert not (out / "eu.a").exists()
    encoded.clear()
    encoded.append("")
    (converted,) = convert([folder], out, **SIZES)
    assert set(encoded) == {"", "eu.a/1.jsonl"}
    train = converted.manifests["eu.a"]["train"]
    assert train.num_documents + train.heldout_documents + train.duplicate_documents == 401
    convert([folder], tmp_path / "one-go", **SIZES)
    assert files_of(out) == files_of(tmp_path / "one-go")


def test_a_source_that_changes_after_it_was_read_or_goes(tmp_path, monkeypatch):
    folder = write_many(tmp_path / "in", 400)
    path = folder / "eu.a" / "1.jsonl"
    with monkeypatch.context() as patch:
        patch.setattr("converters.run.check_unchanged", lambda file: (path.touch(), check_unchanged(file)))
        with pytest.raises(CorpusError, match=r"1.jsonl: was changed while it was read; run the same command again"):
            convert([folder], tmp_path / "touched", **SIZES)
    with monkeypatch.context() as patch:
        patch.setattr("converters.run.sources_of", lambda *own: (path.unlink(), sources_of(*own)))
        with pytest.raises(CorpusError, match=r"1.jsonl: cannot be read \(No such file or directory\)"):
            convert([folder], tmp_path / "gone", **SIZES)


def test_a_source_that_was_mended(tmp_path, monkeypatch):
    """Only its spans are read again."""
    folder, out = write_many(tmp_path / "in", 400), tmp_path / "out"
    path = folder / "eu.a" / "1.jsonl"
    right = path.read_bytes()
    path.write_bytes(right + b"{broken\n")
    with pytest.raises(CorpusError, match=r"eu.a/1.jsonl, line 201: .*--on-error quarantine"):
        convert([folder], out, **SIZES)
    before = stamps(out)
    assert len(before) > 5
    path.write_bytes(right)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("converters.writing.put_in_place", interrupt)
        convert([folder], out, **SIZES)
    after = stamps(out)
    kept = before.items() & after.items()
    assert 5 < len(kept) < len(after)
    convert([folder], out, **SIZES)
    convert([folder], tmp_path / "one-go", **SIZES)
    assert files_of(out) == files_of(tmp_path / "one-go")


@pytest.mark.parametrize("workers", [0, 2])
def test_ctrl_c(corpus, in_one_go, tmp_path, workers):
    """To the whole process group, as a terminal sends it: code 130, not a word of workers, none of them left."""
    out = tmp_path / "out"
    for moment in ("lock", "parts/*.json"):
        with started(corpus, "--out", out, *OPTIONS, "--workers", workers) as process:
            wait_until(lambda: list(out.glob(f".mixstream-eu.a/{moment}")))  # noqa: B023
            workers_of_it = children_of(process.pid)
            begun = time.monotonic()
            os.killpg(process.pid, signal.SIGINT)
            _, complaints = process.communicate(timeout=20)
            assert time.monotonic() - begun < 5
            assert process.returncode == 130
            assert "Traceback" not in complaints, complaints
            wait_until(lambda: not any(map(is_alive, workers_of_it)), 3)  # noqa: B023
        check_no_half_stream(out, in_one_go)
    convert([corpus], out, **SIZES)
    assert files_of(out) == in_one_go


def test_a_worker_that_is_killed(corpus, in_one_go, tmp_path):
    """Out of memory, say: the run ends and says so; the next one goes on."""
    out = tmp_path / "out"
    with started(corpus, "--out", out, *OPTIONS, "--workers", 2) as process:
        wait_until(lambda: list(out.glob(".mixstream-eu.a/parts/*.json")))
        victim = max(children_of(process.pid))
        os.kill(victim, signal.SIGKILL)
        _, complaints = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "a worker process died (killed, or out of memory) after" in complaints
    assert "Traceback" not in complaints
    done = run(corpus, "--out", out, *OPTIONS, "--workers", 2)
    assert done.returncode == 0, done.stderr
    assert files_of(out) == in_one_go


def test_overwriting_mends_what_is_damaged(corpus, in_one_go, tmp_path):
    """A stream made from the same is not taken for a whole one where it was asked to be made again."""
    out = tmp_path / "out"
    convert([corpus], out, **SIZES)
    shard = out / "eu.a" / "shard.00003.mds"
    shard.write_bytes(shard.read_bytes()[:-7])
    with pytest.raises(ShardError, match="shard.00003.mds"):
        convert([corpus], out, **SIZES)
    convert([corpus], out, overwrite=True, **SIZES)
    assert files_of(out) == in_one_go


@pytest.mark.parametrize("overwrite", [False, True])
def test_streams_that_were_put_in_place_before_a_kill_stay(tmp_path, monkeypatch, overwrite):
    rows = [{"text": f"{i} testua " * 12, "lang": ("ca", "es", "eu")[i % 3]} for i in range(300)]
    write_lines(tmp_path / "in" / "all.jsonl", rows)
    given = {**SIZES, "language_field": "lang", "domain": "web"}
    convert([tmp_path / "in"], tmp_path / "one-go", **given)
    out = tmp_path / "out"
    if overwrite:
        convert([tmp_path / "in"], out, **given)
    import converters.writing

    put = converters.writing.put_in_place

    def put_then_die(made, final):
        put(made, final)
        if final.name == "es.web":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("converters.writing.put_in_place", put_then_die)
        convert([tmp_path / "in"], out, **given, overwrite=overwrite)
    before = (out / "ca.web" / "index.json").stat().st_ino
    convert([tmp_path / "in"], out, **given, overwrite=overwrite)
    assert (out / "ca.web" / "index.json").stat().st_ino == before
    assert files_of(out) == files_of(tmp_path / "one-go")


def test_parts_of_another_version_of_a_library_are_not_used(corpus, tmp_path, monkeypatch):
    """It may have made other tokens."""
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("converters.encoding.library_versions", lambda: {"tokenizers": "0.1"})
        patch.setattr("converters.run.write_streams", interrupt)
        with pytest.raises(KeyboardInterrupt):
            convert([corpus], out, **SIZES)
    old = set(stamps(out))
    assert old
    with monkeypatch.context() as patch:
        patch.setattr("converters.run.write_streams", interrupt)
        with pytest.raises(KeyboardInterrupt):
            convert([corpus], out, **SIZES)
    assert set(stamps(out)).isdisjoint(old)
