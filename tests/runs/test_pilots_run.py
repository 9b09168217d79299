"""Pilots trained for real: in sequence, cut and gone on with, on a Dask cluster; and the table of what they read."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from piloting import BATCH, SIZES, cut, pilots_recipe, write_streams
from tiny import save

from mixstream.cli import main
from mixstream.errors import FormatError, RecipeError, RunTableError, StateError
from mixstream.methods.climb import Climb
from mixstream.methods.climb.file import save as save_law
from mixstream.methods.planning.designs import climb_design, monolingual_design
from mixstream.methods.planning.table import table_of
from mixstream.methods.planning.table_files import read_runs
from mixstream.mixture.plan import Plan
from mixstream.runs.pilots.cluster import run_on_cluster
from mixstream.runs.pilots.collecting import collect_pilots, collect_runs, num_parameters
from mixstream.runs.pilots.recipe import load_pilots
from mixstream.runs.pilots.running import run_pilots
from mixstream.runs.pilots.writing import write_pilots
from mixstream.runs.pilots.written import PilotsFolder

NAMES = ["ca-0.25-320-s5", "eu-0.25-320-s5", "ca-0.25-480-s5", "eu-0.25-480-s5"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return write_streams(tmp_path_factory.mktemp("pair"))


def written(streams: Path, place: Path, **changes) -> PilotsFolder:
    out = place / "out"
    write_pilots(load_pilots(save(place / "pilots.yaml", pilots_recipe(streams, out, **changes))), cut)
    return PilotsFolder(out)


def run(folder: PilotsFolder, **options) -> list[str]:
    ended: list[str] = []
    run_pilots(folder, lambda name, run: None, lambda name, result: ended.append(name), **options)
    return ended


@pytest.fixture(scope="module")
def trained(pair, tmp_path_factory):
    folder = written(pair, tmp_path_factory.mktemp("trained"))
    assert run(folder) == NAMES
    return folder


def losses_of(folder: PilotsFolder) -> dict[str, object]:
    return {name: json.loads(folder.run(name).result.read_text())["heldout"] for name in NAMES}


@pytest.mark.filterwarnings("ignore:No batches were trained")
def test_pilots_that_have_ended_are_not_run_again(trained):
    before = {name: folder.stat().st_mtime_ns for name in NAMES for folder in [trained.run(name).result]}
    assert run(trained) == []
    assert before == {name: trained.run(name).result.stat().st_mtime_ns for name in NAMES}
    trained.run(NAMES[2]).result.rename(trained.path / "kept")
    assert run(trained) == [NAMES[2]]


def test_the_table_says_what_runs_read_and_measured(trained, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["climb", "collect", str(trained.path), "--out", str(tmp_path / "runs.parquet")])
    assert "4 runs in " in capsys.readouterr().out
    table = read_runs(tmp_path / "runs.parquet")
    assert table.runs == tuple(NAMES)
    assert table.sources == table.targets == ("ca", "eu")
    assert table.tokens.tolist() == [4 * BATCH, 4 * BATCH, 6 * BATCH, 6 * BATCH]
    assert table.unique.tolist() == [[(SIZES["ca.news"] + SIZES["ca.tales"]) * 8, SIZES["eu.tales"] * 8]] * 4
    for i, name in enumerate(NAMES):
        plan = Plan.load(trained.run(name).plan)
        samples = {entry.name: entry.samples for entry in plan.entries}
        total = sum(samples.values())
        assert table.proportions[i] == pytest.approx(
            [(samples["ca.news"] + samples["ca.tales"]) / total, samples["eu.tales"] / total]
        )
        result = json.loads(trained.run(name).result.read_text())
        assert table.losses[i].tolist() == [result["languages"][own]["nats_per_token"] for own in ("ca", "eu")]
        model = transformers.AutoModelForCausalLM.from_pretrained(trained.run(name).model)
        assert table.parameters[i] == sum(weight.numel() for weight in model.parameters())
    by_stream = collect_runs({NAMES[0]: trained.run(NAMES[0])}, "stream", {name: name for name in SIZES})
    assert by_stream.sources == tuple(SIZES)
    assert by_stream.proportions[0] == pytest.approx([0.1875, 0.0625, 0.75], abs=1 / 40)


def test_a_law_is_compared_with_what_runs_measured(trained, tmp_path, capsys):
    """The law is of other runs: what it expects of these is wrong, and told as it is."""
    mixed, alone = climb_design(("ca", "eu"), (300, 600)), monolingual_design(("ca", "eu"), (300, 600, 900))
    shares, tokens = np.vstack([mixed.proportions, alone.proportions]), np.concatenate([mixed.tokens, alone.tokens])
    losses = 3 + ((shares + 0.01) * tokens[:, None] / 500) ** -0.3
    size = num_parameters(trained.run(NAMES[0]).model)
    planted = table_of(
        ("ca", "eu"), shares, tokens.astype(float), losses, runs=[*mixed.runs, *alone.runs], parameters=size
    )
    law = Climb(form="F1").fit(planted)
    save_law(law, tmp_path / "climb.json")
    with pytest.raises(SystemExit) as stop:
        main(["climb", "compare", str(tmp_path / "climb.json"), str(trained.run(NAMES[0]).path)])
    assert stop.value.code == 0
    table = collect_pilots(trained)[0].rows([0])
    expected = law.predict(table.proportions, table.tokens)[0]
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    for i, row in enumerate(rows[:2]):
        told = float(expected[i] / table.losses[0, i] - 1)
        assert row[-4:] == [
            f"{table.proportions[0, i]:.4f}",
            f"{expected[i]:.4f}",
            f"{table.losses[0, i]:.4f}",
            f"{told:+.2%}",
        ]
    assert rows[2][-4:-1] == ["mean", f"{expected.mean():.4f}", f"{table.losses.mean():.4f}"]


def test_tied_embeddings_are_counted_once(tmp_path):
    config = transformers.LlamaConfig(
        vocab_size=50, hidden_size=8, intermediate_size=12, num_hidden_layers=1, num_attention_heads=2, tie_word_embeddings=True
    )  # fmt: skip
    with torch.random.fork_rng():
        model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(tmp_path)
    assert num_parameters(tmp_path) == sum(weight.numel() for weight in model.parameters())
    assert math.isnan(num_parameters(tmp_path / "nowhere"))
    for damaged in (b"", b"\x05\0\0\0\0\0\0\0[1,2]", b"\xff" * 20):
        (tmp_path / "model.safetensors").write_bytes(damaged)
        with pytest.raises(FormatError, match="damaged: no header of a safetensors file"):
            num_parameters(tmp_path)


def test_unfinished_pilots_are_told_and_left_out_only_on_request(trained, tmp_path, capsys):
    other = tmp_path / "out"
    shutil.copytree(trained.path, other)
    folder = PilotsFolder(other)
    folder.run(NAMES[1]).result.unlink()
    with pytest.raises(StateError, match=r"1 of 4 pilots have not ended: eu-0.25-320-s5; `mixstream climb run`"):
        collect_pilots(folder)
    table, unfinished = collect_pilots(folder, allow_unfinished=True)
    assert (table.runs, unfinished) == ((NAMES[0], *NAMES[2:]), (NAMES[1],))
    with pytest.raises(SystemExit):
        main(["climb", "collect", str(other), "--out", str(tmp_path / "runs.csv"), "--allow-unfinished"])
    assert f"left out: {NAMES[1]} has not ended" in capsys.readouterr().out
    for name in NAMES:
        folder.run(name).result.unlink(missing_ok=True)
    with pytest.raises(StateError, match="4 of 4 pilots have not ended"):
        collect_pilots(folder, allow_unfinished=True)


def test_runs_that_do_not_belong_into_the_table_are_refused(trained, tmp_path):
    runs = {"base": trained.run(NAMES[0])}
    with pytest.raises(RunTableError, match="run 'base' read stream 'eu.tales', which the others have not"):
        collect_runs(runs, "language", {"ca.news": "ca", "ca.tales": "ca"})
    with pytest.raises(RunTableError, match="run 'base' measured no loss of 'gl': .* no held-out split"):
        collect_runs(runs, "language", {**dict.fromkeys(SIZES, "ca"), "gl.tales": "gl"})
    with pytest.raises(StateError, match="holds no run that has ended"):
        collect_runs({"base": PilotsFolder(tmp_path).run("base")}, "language", dict.fromkeys(SIZES, "ca"))


def test_one_that_fails_stops_the_others_or_is_told_at_the_end(pair, tmp_path):
    folder = written(pair, tmp_path)
    path = folder.recipe(NAMES[1])
    path.write_text(
        path.read_text().replace("device: cpu", "device: gpu").replace("microbatch_size: 5", "microbatch_size: 4")
    )
    if torch.cuda.is_available():
        pytest.skip("this machine could train it")
    with pytest.raises(StateError, match="holds no pilots"):
        PilotsFolder(tmp_path).read()
    with pytest.raises(RecipeError, match=f"pilot '{NAMES[1]}': training.device is 'gpu'"):
        run(folder)
    assert not any(map(folder.is_done, NAMES))  # all are looked at before the first starts
    with pytest.raises(
        StateError, match=f"1 of 4 pilots failed: '{NAMES[1]}': training.device is 'gpu'.* goes on with"
    ):
        run(folder, keep_going=True)
    assert [name for name in NAMES if folder.is_done(name)] == [NAMES[0], *NAMES[2:]]
    path.unlink()
    with pytest.raises(StateError, match=r"eu-0.25-320-s5.yaml: is missing; `mixstream climb pilots` writes it again"):
        run(folder)


def test_one_that_is_killed_goes_on_and_ends_as_if_it_never_was(pair, trained, tmp_path):
    """kill -9 in the middle of a pilot; the same command goes on."""
    folder = written(pair, tmp_path)
    command = [sys.executable, "-m", "mixstream.cli", "climb", "run", str(folder.path)]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while not (folder.is_done(NAMES[0]) and folder.run(NAMES[1]).recipe.exists()) and time.monotonic() < deadline:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert folder.is_done(NAMES[0])
    assert not folder.is_done(NAMES[-1])
    left = [name for name in NAMES if not folder.is_done(name)]
    assert run(folder) == left
    assert losses_of(folder) == losses_of(trained)


@pytest.fixture(scope="module")
def cluster():
    """One worker of one thread, on loopback."""
    distributed = pytest.importorskip("distributed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, silence_logs=50
        ) as own:
            yield own


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_cluster_trains_the_same_pilots(cluster, pair, trained, tmp_path):
    """Two of the four; one of them cannot be trained, and is told with what its process complained of."""
    folder = written(pair, tmp_path)
    for name in NAMES[2:]:
        folder.run(name).path.parent.mkdir(exist_ok=True)
        folder.run(name).path.symlink_to(trained.run(name).path)
    path = folder.recipe(NAMES[0])
    path.write_text(path.read_text().replace("warmup_batches: 2", "warmup_batches: 20"))
    ended: list[str] = []
    with pytest.raises(
        StateError, match=f"1 of 4 pilots failed: '{NAMES[0]}': training.warmup_batches is 20.*log: .*logs"
    ):
        run_on_cluster(folder, cluster.scheduler_address, lambda name, result: ended.append(name), keep_going=True)
    assert ended == [NAMES[1]]
    assert losses_of_one(folder, NAMES[1]) == pytest.approx(losses_of_one(trained, NAMES[1]))
    assert "complete" not in (folder.logs / f"{NAMES[1]}.log").read_text()
    folder.run(NAMES[0]).path.symlink_to(trained.run(NAMES[0]).path)
    with pytest.raises(SystemExit) as stop:
        main(["climb", "run", str(folder.path), "--cluster", cluster.scheduler_address])
    assert stop.value.code == 0
    assert np.isfinite(collect_pilots(folder)[0].losses).all()


def endless_python(place: Path) -> Path:
    """Return an interpreter that tells its process and does nothing for long."""
    endless = place / "python"
    endless.write_text(f"#!/bin/bash\necho $$ > {place}/started.tmp\nmv {place}/started.tmp {place}/started\nexec sleep 100\n")  # fmt: skip
    endless.chmod(0o755)
    return endless


def test_a_worker_that_dies_takes_its_pilot_with_it(tmp_path):
    """Another worker is given the pilot at once, and finds its folder free."""
    endless = endless_python(tmp_path)
    code = "import sys; from mixstream.runs.pilots.cluster import train_alone; sys.executable = sys.argv[1]; train_alone(*sys.argv[2:])"
    command = [sys.executable, "-c", code, str(endless), "recipe", str(tmp_path / "logs" / "log")]
    with subprocess.Popen(command) as worker:
        wait_until((tmp_path / "started").exists)
        pilot = int((tmp_path / "started").read_text())
        assert Path(f"/proc/{pilot}").exists()
        worker.kill()
    wait_until(lambda: not is_running(pilot))


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("leave", ["cancel", "close"])
def test_a_pilot_that_nobody_waits_for_ends(cluster, tmp_path, leave):
    """After Ctrl-C a training that went on would hold the folder that the same command wants to go on in."""
    import distributed

    endless = endless_python(tmp_path)

    def train(python, *own):
        import sys

        from mixstream.runs.pilots.cluster import train_alone

        before, sys.executable = sys.executable, python
        try:
            return train_alone(*own)
        finally:
            sys.executable = before

    with distributed.Client(cluster.scheduler_address, set_as_default=False) as client:
        task = client.submit(train, str(endless), "recipe", str(tmp_path / "logs" / "log"), pure=False)
        wait_until((tmp_path / "started").exists)
        pilot = int((tmp_path / "started").read_text())
        time.sleep(1.5)
        assert is_running(pilot)  # it is wanted
        if leave == "cancel":
            client.cancel([task])
            wait_until(lambda: not is_running(pilot))
    wait_until(lambda: not is_running(pilot))


def wait_until(happened, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def losses_of_one(folder: PilotsFolder, name: str) -> list[float]:
    return [loss["nats_per_token"] for loss in json.loads(folder.run(name).result.read_text())["heldout"].values()]


def test_a_cluster_that_is_not_there_is_told(pair, tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("mixstream.runs.pilots.cluster.CLUSTER_SECONDS", 1)
    with pytest.raises(StateError, match="no Dask scheduler answers there"):
        run_on_cluster(written(pair, tmp_path), "tcp://127.0.0.1:9", lambda name, result: None)
