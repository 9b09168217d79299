"""Runs whose streams lie in a bucket: the same batches and losses as from files, whatever stops them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from test_processes import BIN, ENVIRONMENT, wait_for_batch
from test_train import CLOCK, metrics_of
from tiny import RUN, XDOGE, chain, save, single

from mixstream import Catalog
from mixstream.callbacks.heldout import bytes_at_a_time
from mixstream.cli import main
from mixstream.errors import CacheError, RecipeError, StreamError
from mixstream.mixture.plan import Plan
from mixstream.mixture.simulate import working_set_bytes
from mixstream.runs.chain import run_recipe
from mixstream.runs.recipe import load_recipe
from mixstream.runs.train import check_apart, plan_run

KEY, SECRET = "AKIAMIXSTREAMTESTKEY", "mixstream/test+Secret/of/forty=characters"


@pytest.fixture(autouse=True)
def secrets(bucket, monkeypatch):
    """Keys that moto does not look at, and that can be looked for afterwards."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    return KEY, SECRET


def cached(folder: Path, limit: int | str | None = None, **changes) -> dict:
    return {
        "training": RUN["training"] | {"cache_dir": str(folder)} | ({"cache_limit": limit} if limit else {}) | changes
    }


def run(tmp_path, content):
    recipe = load_recipe(save(tmp_path / "recipe.yaml", content))
    return next(iter(run_recipe(recipe, lambda name, run: None).values()))


def lines_of(folder: Path) -> dict:
    """Return the metrics that tell of the model, not of the machine."""
    metrics = metrics_of(folder)
    return {name: own for name, own in metrics.items() if not name.startswith(("store/", *CLOCK))}


def stored_bytes(streams: Path) -> int:
    return sum(path.stat().st_size for path in streams.rglob("*.mds"))


def test_a_proxy_from_a_bucket_is_that_from_files_and_tells_what_it_fetched(streams, bucket, proxy, tmp_path):
    url = bucket.upload(streams, "of/run")
    local = run(tmp_path, single(streams, tmp_path / "local", method=XDOGE))
    remote = run(tmp_path, single(url, tmp_path / "remote", method=XDOGE, **cached(tmp_path / "cache")))
    assert remote.heldout == local.heldout
    assert lines_of(tmp_path / "remote") == lines_of(tmp_path / "local")
    learnt = [(tmp_path / name / "weights.jsonl").read_text() for name in ("local", "remote")]
    assert learnt[0] == learnt[1]
    assert not any(name.startswith("store/") for name in metrics_of(tmp_path / "local"))
    # Counted at the proxy: each shard once, by training and probes together (but where a slow request was overtaken by
    # another), and all that the log tells.
    shards = [record for record in proxy.log() if record.method == "GET" and record.path.endswith(".mds")]
    sizes = [(streams / record.path.partition("/of/run/")[2]).stat().st_size for record in shards]
    once = sum({record.path: size for record, size in zip(shards, sizes, strict=True)}.values())
    log = {name: own[24] for name, own in metrics_of(tmp_path / "remote").items() if 24 in own}
    names = Plan.load(tmp_path / "remote" / "plan.json").streams
    sums = {what: sum(log[f"store/{what}/{name}"] for name in names) for what in ("bytes", "requests", "faults")}
    assert (sums["requests"], sums["faults"]) == (len(shards), 0)
    assert once <= sums["bytes"] <= sum(sizes)
    assert sum(sizes) <= 1.2 * once < 1.2 * stored_bytes(streams)
    assert 0 < log["loader/wait_seconds"] < log["loader/seconds"]
    # It is over: nothing is reserved, nothing is half made.
    assert not list((tmp_path / "cache" / ".reserved").iterdir())
    assert not list((tmp_path / "cache").rglob("*.part"))


def test_a_limit_that_is_too_small_is_refused_with_one_that_works(streams, bucket, tmp_path):
    """The sum of what training, probes and held-out splits need; one byte less is refused, and writes nothing."""
    url, mixture = bucket.upload(streams), RUN["mixture"] | {"window_samples": 7}
    content = single(url, tmp_path / "run", method=XDOGE, mixture=mixture, **cached(tmp_path / "cache", 1000))
    with pytest.raises(CacheError, match=r"^run 'proxy': training.cache_limit is 1,000 bytes, .* at a time: ") as told:
        run(tmp_path, content)
    numbers = [int(number.replace(",", "")) for number in str(told.value).split() if number[0].isdigit()]
    limit, total, training, probes, heldout, least = numbers
    catalog = Catalog.open(url)
    planned = plan_run(
        load_recipe(save(tmp_path / "r.yaml", single(streams, tmp_path / "x", mixture=mixture))).run,
        streams,
        tmp_path / "x",
    )
    assert training == working_set_bytes(planned.plan, catalog, 1) == probes
    assert heldout == bytes_at_a_time(catalog.heldout(), 5, None, 8)
    assert (limit, total, least) == (1000, training + probes + heldout, total)
    with pytest.raises(CacheError, match=f"give a cache_limit of {least:,} bytes or more"):
        run(tmp_path, content | cached(tmp_path / "cache", least - 1))
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "cache").exists()
    assert least < stored_bytes(streams)
    result = run(tmp_path, content | cached(tmp_path / "cache", least))
    assert sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*.mds")) <= least
    assert result.heldout == run(tmp_path, single(streams, tmp_path / "local", method=XDOGE, mixture=mixture)).heldout
    # Another cache is no other recipe: the run has ended, and stays so.
    again = run(tmp_path, content | cached(tmp_path / "elsewhere", "1 GB"))
    assert again == result
    with pytest.raises(CacheError, match="^run 'base': training.cache_limit is 1,000 bytes"):
        whole = chain(url, tmp_path / "chain")
        whole["base"] = whole["base"] | cached(tmp_path / "cache", 1000)
        whole["proxy"] = whole["proxy"] | cached(tmp_path / "cache")
        run(tmp_path, whole)
    assert not (tmp_path / "chain").exists()


def test_what_a_held_out_read_needs_is_never_more_than_is_told(streams):
    """Against every place where a read can begin, on a catalog whose last shards are smaller."""
    catalog = Catalog.open(streams)
    for batch_size in (1, 2, 3, 7, 8, 20, 500):
        for most in (None, 1, 20, 100):
            worst = 0
            for stream in catalog:
                shard_of = [number for number, rows in enumerate(stream.index.shard_samples) for _ in range(rows)][
                    :most
                ]
                for start in range(len(shard_of)):
                    opened = set(shard_of[start : start + batch_size])
                    worst = max(worst, sum(int(stream.index.file_bytes[number]) for number in opened))
            assert bytes_at_a_time(catalog, batch_size, most, None) == worst


def test_two_processes_read_a_bucket_as_one_reads_files_and_go_on_after_kill_9(streams, bucket, tmp_path):
    """One cache for both of them, smaller than the data; killed on the way, the same command goes on."""
    url, mixture = bucket.upload(streams), RUN["mixture"] | {"window_samples": 7, "budget_tokens": 50 * 10 * 8}
    cache = cached(tmp_path / "cache", 12_000, heldout_batches=20)
    local = single(streams, tmp_path / "local", mixture=mixture, training=RUN["training"] | {"heldout_batches": 20})
    recipes = {"local": local, "cut": single(url, tmp_path / "cut", mixture=mixture, **cache)}
    assert stored_bytes(streams) > 12_000
    saved = {name: str(save(tmp_path / f"{name}.yaml", content)) for name, content in recipes.items()}
    expected = run(tmp_path, recipes["local"])
    command = [str(BIN / "composer"), "-n", "2", "-m", "mixstream.cli", "train", saved["cut"]]
    environment = {**ENVIRONMENT, **os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        wait_for_batch(tmp_path / "cut", 12, process)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=30)
    assert not (tmp_path / "cut" / "result.json").exists()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "cut" / "result.json").read_text())
    assert found["ranks"] == 2
    for name, loss in expected.heldout.items():
        assert found["heldout"][name]["nats_per_token"] == pytest.approx(loss.nats_per_token, rel=1e-3)
    # Totals over both processes and both lives: they only grow, and there are no fewer than before the kill.
    metrics = metrics_of(tmp_path / "cut")
    for what in ("store/bytes/en.tales", "store/requests/en.tales", "loader/wait_seconds", "loader/seconds"):
        values = [metrics[what][batch] for batch in sorted(metrics[what])]
        assert values == sorted(values)
    assert sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*.mds")) <= 12_000
    _no_secret(tmp_path, done.stdout + done.stderr)


def _no_secret(folder: Path, printed: str = "") -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 5
    for path in files:
        content = path.read_bytes()
        assert KEY.encode() not in content, path
        assert SECRET.encode() not in content, path
    assert KEY not in printed
    assert SECRET not in printed


def test_no_key_is_written_anywhere(bucket, proxy, tmp_path, capfd):
    """By any command, in any file here or there, also where the store refuses."""
    url = f"{bucket.url}/streams"
    corpus = tmp_path / "in" / "eu.a.jsonl"
    corpus.parent.mkdir()
    corpus.write_text("".join(json.dumps({"text": f"testu {i} " * 9}) + "\n" for i in range(40)))
    changes = {"mixture": RUN["mixture"] | {"floor": 0.0}, **cached(tmp_path / "cache")}
    recipe = save(tmp_path / "recipe.yaml", single(url, tmp_path / "run", **changes))
    commands = [
        ["convert", corpus, "--out", url, "--sequence-length", 8, "--holdout", 0.2, "--staging", tmp_path / "staging"],
        ["inspect", url],
        ["verify", url],
        ["plan", url, "--budget-tokens", 800, "--batch-size", 5, "--out", tmp_path / "plan.json"],
        ["train", recipe],
        ["report", tmp_path / "run", "--out", tmp_path / "report.html"],
    ]
    codes = [call(*command) for command in commands]
    proxy.set(deny="eu.a")
    codes.append(call("train", recipe, "--out", tmp_path / "refused"))
    assert codes == [0] * 6 + [2]
    printed = "".join(capfd.readouterr())
    assert "403" in printed
    assert f"{url}/eu.a" in printed
    for key in sorted(bucket.keys()):
        (tmp_path / "there" / key).parent.mkdir(parents=True, exist_ok=True)
        body = bucket.server.client.get_object(Bucket=bucket.name, Key=key)["Body"]
        (tmp_path / "there" / key).write_bytes(body.read())
    assert (tmp_path / "there" / "streams" / "eu.a" / "stream.json").exists()
    _no_secret(tmp_path, printed)


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)


def test_a_recipes_cache_is_checked_and_can_be_given_from_outside(streams, tmp_path):
    content = single(streams, tmp_path / "run")
    for training, message in (
        (
            {"cache_dir": "c", "cache_limit": "many"},
            r"training.cache_limit: cache_limit='many'; expected bytes above 0",
        ),
        ({"cache_dir": "c", "cache_limit": 0}, r"training.cache_limit: cache_limit=0; expected bytes above 0"),
        ({"cache_dir": "c", "cache_limit": True}, r"training.cache_limit"),
        ({"cache_limit": 5}, r"training: cache_limit 5 limits nothing without a cache_dir"),
        ({"cache_dir": "s3://bucket/cache"}, r"training.cache_dir: .*: a cache is a folder of this machine, not a URL"),
        ({"cache_dir": ""}, r"training.cache_dir: cache_dir='': names no folder; give one"),
    ):
        with pytest.raises(RecipeError, match=message):
            load_recipe(save(tmp_path / "r.yaml", content | {"training": RUN["training"] | training}))
    recipe = load_recipe(save(tmp_path / "r.yaml", content), "s3://bucket/streams", None, tmp_path / "c", "2 GB")
    assert recipe.streams == "s3://bucket/streams"
    assert (recipe.run.training.cache_dir, recipe.run.training.cache_limit) == (str(tmp_path / "c"), "2 GB")
    both = load_recipe(save(tmp_path / "r.yaml", chain(streams, tmp_path / "out")), cache_dir="c", cache_limit=5000)
    assert [run.training.cache_limit for run in (both.proxy, both.base)] == [5000, 5000]


def test_only_folders_can_lie_in_one_another(tmp_path, bucket):
    check_apart("s3://bucket/streams", tmp_path)
    with pytest.raises(StreamError, match="is a URL that lost a slash"):
        check_apart(Path("s3://bucket/streams"), tmp_path)


def test_a_bucket_without_a_cache_is_refused(streams, bucket, tmp_path):
    with pytest.raises(StreamError, match=r"its shards lie in an object store .* give a cache_dir"):
        run(tmp_path, single(bucket.upload(streams), tmp_path / "run"))
    assert not (tmp_path / "run").exists()
