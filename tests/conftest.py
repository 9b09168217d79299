"""What tests share: streams whose every token tells where it is from, and catalogs without files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from servers.fixtures import azurite, bucket, container, proxy, s3  # noqa: F401

from mixstream.cli import main
from mixstream.formats import dump_json
from mixstream.kernels import native
from mixstream.mixture.plan import Plan
from mixstream.streams.catalog import Catalog, Stream
from mixstream.streams.index import MdsIndex
from mixstream.streams.manifest import Source, StreamManifest, TokenizerInfo
from mixstream.streams.placing import put_in_place
from mixstream.streams.tokens import TokenColumn
from mixstream.streams.writer import RowFormat, write_index, write_shard

REPOSITORY = Path(__file__).parent.parent
ENVIRONMENT = dict(os.environ)  # of other processes: torch.distributed leaves a launcher's variables in this one
CORPORA = REPOSITORY.parent / "shared" / "corpora"
REGMIX = REPOSITORY.parent / "shared" / "fixtures" / "regmix"
BYTE = TokenizerInfo(name="byte", fingerprint="byte-1", vocab_size=257, eod_token_id=256)

# Deadlines measure a noisy machine; examples are bounded instead.
settings.register_profile("mixstream", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("mixstream")

# Where they could have been built they must have been.
_COMPILES = any(map(shutil.which, ("cc", "gcc", "clang"))) and Path(sysconfig.get_path("include"), "Python.h").exists()
needs_kernels = pytest.mark.skipif(
    native is None and not _COMPILES, reason="no C compiler, or no Python.h, to build the kernels"
)
needs_corpora = pytest.mark.skipif(not CORPORA.exists(), reason=f"real corpora are not there: {CORPORA}")
needs_regmix = pytest.mark.skipif(not REGMIX.exists(), reason=f"RegMix's runs are not there: {REGMIX}")


def fake_catalog(shards: Mapping[str, Sequence[int]], sequence_length: int = 8) -> Catalog:
    """Return a catalog of streams with these shard sizes, and no files: enough to plan and to order."""
    streams = {}
    for name, samples in shards.items():
        index = MdsIndex(
            files=tuple(f"shard.{i:05}.mds" for i in range(len(samples))),
            file_bytes=np.zeros(len(samples), np.int64),
            shard_samples=np.array(samples, np.int64),
            column_names=("tokens",),
            column_encodings=(f"ndarray:uint16:{sequence_length}",),
            column_sizes=(2 * sequence_length,),
            fingerprint=f"{name}{sum(samples)}",
        )
        column = TokenColumn("tokens", np.dtype("<u2"), sequence_length, 0, (2 * sequence_length,))
        streams[name] = Stream(
            name, Path("nowhere") / name, name[:2], name[3:], sequence_length, index, column, BYTE, 1.0
        )
    return Catalog(Path("nowhere"), streams)


def write_stream(
    root: Path,
    name: str,
    number: int,
    num_samples: int,
    *,
    sequence_length: int = 8,
    heldout: int = 0,
    tokenizer: TokenizerInfo = BYTE,
) -> None:
    """Write a real stream whose row r is [number, r // 256, r % 256, 0, 1, ...]: a token is below 257."""
    seven_samples = 205 + 7 * (2 * sequence_length + 4)  # a shard's header, its samples and their offsets
    made = root / f".{name}.making"
    for split, count in (("train", num_samples), ("heldout", heldout)):
        rows = np.tile(np.arange(sequence_length, dtype=np.uint16) - np.uint16(3), (count, 1))
        rows[:, 0], rows[:, 1], rows[:, 2] = number, np.arange(count) // 256, np.arange(count) % 256
        if count:
            manifest = _manifest(name, split, count, sequence_length, tokenizer)
            write_split(made if split == "train" else made / split, {"tokens": rows}, manifest, seven_samples)
    put_in_place(made, root / name)


def write_split(
    directory: Path,
    rows: Mapping[str, np.ndarray],
    manifest: StreamManifest | None,
    shard_bytes: int = 1 << 26,
    compression: str | None = None,
) -> None:
    """Write shards of these rows, their index and stream.json; columns are of the types of their arrays."""
    directory.mkdir(parents=True)
    encodings = {
        name: f"ndarray:{values.dtype.name}:{values.shape[1]}" if values.ndim == 2 else values.dtype.name
        for name, values in rows.items()
    }
    form = RowFormat(tuple(encodings.items()))
    step = form.samples_per_shard(shard_bytes, compression)
    entries = []
    for first in range(0, len(next(iter(rows.values()))), step):
        own = {name: values[first : first + step] for name, values in rows.items()}
        entries.append(write_shard(directory, len(entries), own, form, shard_bytes, compression))
    write_index(directory, entries)
    if manifest is not None:
        save_manifest(directory, manifest)


def _manifest(name: str, split: str, count: int, length: int, tokenizer: TokenizerInfo) -> StreamManifest:
    return StreamManifest.model_validate(
        {
            "name": name,
            "language": name[:2],
            "domain": name[3:],
            "split": split,
            "num_samples": count,
            "num_tokens": count * length,
            "num_documents": count,
            "heldout_documents": 0,
            "num_bytes": count * (length - 1),
            "remainder_tokens": 0,
            "sequence_length": length,
            "dtype": "uint16",
            "tokenizer": tokenizer,
            "text_field": "text",
            "holdout": 0.1,
            "sources": (Source(name="made", size_bytes=1, sha256="0"),),
        }
    )


def compress(streams: Path) -> None:
    """Compress all shards of streams, and of their held-out splits, in their place."""
    import zstd

    for path in streams.rglob("index.json"):
        index = json.loads(path.read_text())
        for entry in index["shards"]:
            raw = path.parent / entry["raw_data"]["basename"]
            packed = raw.with_name(f"{raw.name}.zstd")
            packed.write_bytes(zstd.compress(raw.read_bytes()))
            raw.unlink()
            zip_data = {"basename": packed.name, "bytes": packed.stat().st_size, "hashes": {}}
            entry.update(compression="zstd", zip_data=zip_data)
        path.write_text(json.dumps(index))


SIZES = {"ca.tales": 60, "en.tales": 240, "es.tales": 171, "eu.tales": 23, "gl.tales": 31}


@pytest.fixture(scope="session")
def streams(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five real streams of many small shards, with held-out splits."""
    root = tmp_path_factory.mktemp("streams")
    for number, (name, size) in enumerate(SIZES.items()):
        write_stream(root, name, number, size, heldout=3 + number)
    return root


@pytest.fixture
def catalog(streams: Path) -> Catalog:
    return Catalog.open(streams)


@pytest.fixture
def edit_json() -> Callable[[Path, Callable[[dict], object]], None]:
    """Return a function that changes a JSON file in place."""

    def edit(path: Path, change: Callable[[dict], object]) -> None:
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return edit


def save_manifest(directory: Path, manifest: StreamManifest) -> None:
    (directory / "stream.json").write_text(dump_json(manifest))


def plain_uniform(plan: Plan) -> dict[str, float]:
    return dict.fromkeys(plan.streams, 1 / len(plan.streams))


@pytest.fixture
def call(capsys, monkeypatch) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs a command: (exit code, what it printed, what it complained of)."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An executable `mixstream` of this working tree."""
    path = tmp_path_factory.mktemp("bin") / "mixstream"
    path.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(REPOSITORY)!r})\nfrom mixstream.cli import main\nmain()\n"
    )
    path.chmod(0o755)
    return path


@pytest.fixture
def shell(program, tmp_path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs a script in a real bash that knows the program."""

    def run(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", script],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=tmp_path,
            env=ENVIRONMENT
            | {"PATH": f"{program.parent}:{ENVIRONMENT['PATH']}", "TMPDIR": str(tmp_path), **environment},
        )

    return run
