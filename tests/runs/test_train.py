"""Runs under Composer, in this process: what they leave behind, how they go on, what they refuse."""

from __future__ import annotations

import json
import math
import os
import resource
import shutil
from pathlib import Path

import pytest
from tiny import RUN, XDOGE, chain, save, single

from mixstream.callbacks.exposure import Exposure
from mixstream.errors import MixstreamError, RecipeError, ScoreError, ShardError, StateError, StreamError
from mixstream.methods.learning.history import read_history
from mixstream.mixture.plan import Plan
from mixstream.runs.chain import run_recipe
from mixstream.runs.folder import Result, RunFolder
from mixstream.runs.recipe import load_recipe
from mixstream.runs.train import plan_run


def run(tmp_path, content):
    return run_recipe(load_recipe(save(tmp_path / "recipe.yaml", content)), lambda name, run: None)


CLOCK = ("loader/", "throughput/", "xdoge/seconds")  # what is another number each time


def but_the_clock(metrics: dict[str, dict[int, float]]) -> dict[str, dict[int, float]]:
    return {name: own for name, own in metrics.items() if not name.startswith(CLOCK)}


def metrics_of(folder: Path) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        entry = json.loads(line)
        for name, value in entry["metrics"].items():
            assert entry["batch"] not in found.setdefault(name, {}), f"{name} is logged twice"
            found[name][entry["batch"]] = value
    return found


def test_a_base_run_leaves_what_a_person_and_a_report_need(streams, tmp_path):
    result = run(tmp_path, single(streams, tmp_path / "run"))["base"]
    assert (result.batches, result.tokens, result.ranks) == (24, 24 * 80, 1)
    assert set(result.heldout) == set(Plan.load(tmp_path / "run" / "plan.json").streams)
    assert set(result.languages) == {"ca", "en", "es", "eu", "gl"}
    one = result.heldout["eu.tales"]
    assert one.num_tokens == 6 * 8
    # conftest: 7 of 8 tokens are bytes.
    assert one.bits_per_byte == pytest.approx(one.nats_per_token * 8 / 7 / math.log(2))
    metrics = metrics_of(tmp_path / "run")
    assert sorted(metrics["loss/train/total"]) == list(range(1, 25))
    assert metrics["loss/train/total"][24] < metrics["loss/train/total"][1]
    # The streams' losses are means over rows whose mean is the total.
    shares = [metrics[f"mixture/read/{name}"][24] for name in result.heldout]
    losses = [metrics[f"mixture/loss/{name}"][24] for name in result.heldout]
    total = [metrics["loss/train/total"][batch] for batch in range(21, 25)]
    assert sum(s * x for s, x in zip(shares, losses, strict=True)) == pytest.approx(sum(total) / 4, rel=1e-5)
    assert sum(shares) == pytest.approx(1)
    assert metrics["mixture/repeat/eu.tales"][24] == pytest.approx(48 / 23, abs=1 / 23)
    assert sorted(p.name for p in (tmp_path / "run" / "checkpoints").iterdir()) == ["ba20-rank0.pt", "ba24-rank0.pt"]
    # It has ended: a second call trains nothing.
    assert run(tmp_path, single(streams, tmp_path / "run"))["base"] == result


def test_a_proxy_learns_weights_that_its_loader_follows(streams, tmp_path):
    run(tmp_path, single(streams, tmp_path / "run", method=XDOGE))
    history = read_history(tmp_path / "run" / "weights.jsonl")
    assert [update.batch for update in history] == [0, 3, 6, 9, 12, 15, 18, 21]
    assert [update.at_batch for update in history[1:]] == [5, 8, 11, 14, 17, 20, 23]
    for update in history:
        assert math.fsum(update.weights.values()) == pytest.approx(1, abs=1e-9)
        assert min(update.weights.values()) >= 0.05 - 1e-12
    assert history[-1].weights != history[0].weights
    metrics = metrics_of(tmp_path / "run")
    last = history[-1].weights
    for name, weight in last.items():
        assert metrics[f"mixture/weight/{name}"][21] == weight
        assert metrics[f"mixture/proportion/{name}"][24] == pytest.approx(weight)


class PowerCut(BaseException):
    pass


def test_a_run_that_was_cut_goes_on_exactly(streams, tmp_path, monkeypatch):
    """Cut between two checkpoints, of a proxy: what it reads, learns and logs is as if it had never stopped."""
    run(tmp_path, single(streams, tmp_path / "whole", method=XDOGE))
    seen: list[int] = []

    def cut(self, state, logger):
        seen.append(int(state.timestamp.batch))
        if seen[-1] == 13 and len(seen) < 20:
            raise PowerCut

    monkeypatch.setattr(Exposure, "batch_start", cut, raising=False)
    with pytest.raises(PowerCut):
        run(tmp_path, single(streams, tmp_path / "cut", method=XDOGE))
    (tmp_path / "cut" / "checkpoints" / "ba12-rank0.pt").write_bytes(b"half a checkpoint")
    (tmp_path / "cut" / "checkpoints" / "ba3-rank0.pt").write_bytes(b"old")
    assert RunFolder(tmp_path / "cut").newest_checkpoint().name == "ba10-rank0.pt"
    monkeypatch.setattr(Exposure, "batch_start", lambda self, state, logger: seen.append(int(state.timestamp.batch)))
    run(tmp_path, single(streams, tmp_path / "cut", method=XDOGE))
    assert seen == [*range(14), *range(10, 24)]
    ours, theirs = (tmp_path / name / "weights.jsonl" for name in ("cut", "whole"))
    assert ours.read_text() == theirs.read_text()
    cut_metrics, whole_metrics = metrics_of(tmp_path / "cut"), metrics_of(tmp_path / "whole")
    assert but_the_clock(cut_metrics) == but_the_clock(whole_metrics)
    for name in cut_metrics:  # and what tells of the clock comes at the same batches
        assert sorted(cut_metrics[name]) == sorted(whole_metrics[name])
    left = {name: sorted(p.name for p in (tmp_path / name / "checkpoints").iterdir()) for name in ("cut", "whole")}
    assert left == {"whole": ["ba20-rank0.pt", "ba24-rank0.pt"], "cut": ["ba10-rank0.pt", *left["whole"]]}


@pytest.mark.parametrize("checkpoint_batches", [5, 6])
@pytest.mark.filterwarnings("ignore:No batches were trained")
def test_a_run_cut_after_its_last_batch_only_ends(streams, tmp_path, monkeypatch, checkpoint_batches):
    """Its last checkpoint is of the end of the epoch, or, where the interval divides the run, of its last batch.

    StreamingDataset replays the whole epoch from the first of these (docs/engine.md).
    """
    training = RUN["training"] | {"checkpoint_batches": checkpoint_batches, "log_batches": 7, "heldout_batches": 8}
    content = single(streams, tmp_path / "run", training=training)
    whole = run(tmp_path, content)["base"]
    metrics = metrics_of(tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    monkeypatch.setattr(Exposure, "batch_start", lambda self, state, logger: pytest.fail("trains"), raising=False)
    again = run(tmp_path, content)["base"]
    assert again.heldout == whole.heldout
    assert again.batches == 24
    assert but_the_clock(metrics_of(tmp_path / "run")) == but_the_clock(metrics)


@pytest.mark.filterwarnings("ignore:No batches were trained")
def test_logs_that_lost_lines_are_mended_or_refused(streams, tmp_path):
    """Metrics are for people, who can do without a line; a learnt weight that is lost cannot be replayed."""
    run(tmp_path, single(streams, tmp_path / "run", method=XDOGE))
    for name in ("metrics.jsonl", "weights.jsonl"):
        (tmp_path / "run" / "result.json").unlink(missing_ok=True)
        path = tmp_path / "run" / name
        whole = path.read_text().splitlines(keepends=True)
        path.write_text("".join([whole[0], '{"batch"\n', *whole[2:]]))
        if name == "weights.jsonl":
            with pytest.raises(StateError, match="weights.jsonl has 7 whole lines, but the checkpoint is of update 7"):
                run(tmp_path, single(streams, tmp_path / "run", method=XDOGE))
        else:
            run(tmp_path, single(streams, tmp_path / "run", method=XDOGE))
            *kept, last = path.read_text().splitlines(keepends=True)  # the last is written at the end, again
            assert kept == [whole[0], *whole[2:-1]]
            assert json.loads(last)["metrics"].keys() == json.loads(whole[-1])["metrics"].keys()


def test_the_chain_learns_averages_and_compares(streams, tmp_path):
    names = []
    recipe = load_recipe(save(tmp_path / "recipe.yaml", chain(streams, tmp_path / "out")))
    results = run_recipe(recipe, lambda name, run: names.append((name, run.plan)))
    assert [name for name, _ in names] == list(results) == ["proxy", "base", "uniform"]
    learnt = json.loads((tmp_path / "out" / "weights.json").read_text())["weights"]
    plans = dict(names)
    assert plans["base"].weights.tolist() == list(learnt.values())
    assert {name: plan.weights_from for name, plan in plans.items()} == {
        "proxy": "uniform",
        "base": str(tmp_path / "out" / "weights.json"),
        "uniform": "uniform",
    }
    assert plans["uniform"].weights.tolist() == pytest.approx([0.2] * 5)
    assert plans["base"].seed == plans["uniform"].seed
    assert {name: result.tokens for name, result in results.items()} == dict.fromkeys(results, 24 * 80)


def test_a_chain_that_cannot_end_is_refused_before_the_proxy_trains(streams, tmp_path):
    content = chain(streams, tmp_path / "out")
    content["base"]["mixture"] = content["base"]["mixture"] | {"max_repeats": 0.3}
    with pytest.raises(MixstreamError, match="^run 'base': the run needs .* repeat budgets of its 5 streams supply"):
        run(tmp_path, content)
    assert not (tmp_path / "out").exists()
    content = chain(streams, tmp_path / "out")
    content["base"]["training"] = content["base"]["training"] | {"warmup_batches": 99}
    with pytest.raises(RecipeError, match="warmup_batches is 99"):
        run(tmp_path, content)
    assert not (tmp_path / "out").exists()
    shutil.copytree(streams, tmp_path / "out" / "base")
    with pytest.raises(StateError, match="^run 'base': .* lie in one another"):
        run(tmp_path, chain(tmp_path / "out" / "base", tmp_path / "out"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["base"]


def test_another_recipe_in_the_same_folder_is_refused(streams, tmp_path):
    run(tmp_path, single(streams, tmp_path / "run"))
    changed = RUN["training"] | {"learning_rate": 0.02}
    with pytest.raises(StateError, match=r"training.learning_rate was 0\.01, is 0\.02; choose another folder"):
        run(tmp_path, single(streams, tmp_path / "run", training=changed))
    # How fast it runs may change, but where weights are learnt not what rounds differently.
    faster = RUN["training"] | {"microbatch_size": 10, "num_workers": 1}
    assert isinstance(run(tmp_path, single(streams, tmp_path / "run", training=faster))["base"], Result)
    run(tmp_path, single(streams, tmp_path / "proxy", method=XDOGE))
    with pytest.raises(StateError, match="training.microbatch_size was 5, is 10"):
        run(tmp_path, single(streams, tmp_path / "proxy", method=XDOGE, training=faster))
    (tmp_path / "run" / "recipe.yaml").write_text("seed: [")
    with pytest.raises(StateError, match="recipe.yaml: damaged"):
        run(tmp_path, single(streams, tmp_path / "run"))


def test_a_run_that_cannot_start_leaves_nothing(streams, tmp_path, monkeypatch):
    monkeypatch.setattr("mixstream.runs.trainer.build_model", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(tmp_path, single(streams, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_two_processes_do_not_run_in_one_folder(streams, tmp_path):
    folder = RunFolder(tmp_path / "run")
    with folder.locked():
        with pytest.raises(StateError, match=rf"process {os.getpid()} is running here; wait for it"):
            run(tmp_path, single(streams, tmp_path / "run"))
        assert [path.name for path in folder.path.iterdir()] == [".lock"]
    assert not folder.path.exists()
    run(tmp_path, single(streams, tmp_path / "run"))
    assert not (folder.path / ".lock").exists()


def test_one_stream_alone_is_trained_on_and_measured(streams, tmp_path):
    result = run(tmp_path, single(streams / "eu.tales", tmp_path / "run"))["base"]
    assert set(result.heldout) == {"eu.tales"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training": RUN["training"] | {"warmup_batches": 24}}, "warmup_batches is 24, but the run has 24 batches"),
        ({"method": XDOGE | {"warmup_batches": 21}}, "the first learnt weights would act at batch 23|$"),
        ({"method": XDOGE | {"warmup_batches": 22}}, "the first learnt weights would act at batch 26"),
        ({"method": XDOGE | {"interval_batches": 30}}, "the first learnt weights would act at batch 32"),
        ({"method": XDOGE | {"sequences_per_stream": 10**6}}, "a probe of 5 streams 5,000,000 rows; expected 131,072"),
        ({"training": RUN["training"] | {"device": "gpu"}}, "torch finds none"),
    ],
)
def test_a_run_that_would_not_do_what_it_is_for_is_refused(streams, tmp_path, changes, message):
    content = single(streams, tmp_path / "run", **changes)
    if message.endswith("|$"):
        assert plan_run(load_recipe(save(tmp_path / "r.yaml", content)).run, streams, tmp_path / "run")
        return
    with pytest.raises(RecipeError, match=message):
        run(tmp_path, content)
    assert not (tmp_path / "run").exists()


def test_a_batch_or_probe_that_the_processes_cannot_share_is_refused(streams, tmp_path, monkeypatch):
    monkeypatch.setattr("composer.utils.dist.get_world_size", lambda: 4)
    with pytest.raises(RecipeError, match="batch_size is 10, which 4 processes cannot share evenly"):
        run(tmp_path, single(streams, tmp_path / "run"))
    mixture = RUN["mixture"] | {"batch_size": 8}
    with pytest.raises(RecipeError, match="2 sequences of 5 streams, 10 rows, which 4 processes cannot share"):
        run(tmp_path, single(streams, tmp_path / "run", method=XDOGE, mixture=mixture))


def test_a_damaged_held_out_shard_is_found_before_training(streams, tmp_path):
    shutil.copytree(streams, tmp_path / "streams")
    shard = tmp_path / "streams" / "eu.tales" / "heldout" / "shard.00000.mds"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(ShardError, match=r"heldout/shard.00000.mds"):
        run(tmp_path, single(tmp_path / "streams", tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_that_is_damaged_or_of_another_model_is_refused(streams, tmp_path):
    run(tmp_path, single(streams, tmp_path / "run"))
    run(tmp_path, single(streams, tmp_path / "other", model=RUN["model"] | {"hidden_size": 32}))
    for name in ("run", "other"):
        (tmp_path / name / "result.json").unlink()
    checkpoint = tmp_path / "run" / "checkpoints" / "ba24-rank0.pt"
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes((tmp_path / "other" / "checkpoints" / "ba24-rank0.pt").read_bytes())
    with pytest.raises(StateError, match=r"ba24-rank0.pt: cannot be loaded \(.*; remove it to go on from an older one"):
        run(tmp_path, single(streams, tmp_path / "run"))
    middle = len(whole) // 3
    checkpoint.write_bytes(whole[:middle] + bytes(x ^ 0xFF for x in whole[middle : middle + 9]) + whole[middle + 9 :])
    try:
        run(tmp_path, single(streams, tmp_path / "run"))
    except StateError as error:  # or the flipped bytes were numbers, which nothing can tell
        assert "cannot be loaded" in str(error)
    for batch in (20, 24):
        (tmp_path / "run" / "checkpoints" / f"ba{batch}-rank0.pt").write_bytes(b"torn")
    (tmp_path / "run" / "result.json").unlink(missing_ok=True)
    with pytest.raises(StateError, match="none of its 2 checkpoints is whole"):
        run(tmp_path, single(streams, tmp_path / "run"))
    # One torn checkpoint is what a crash during the first one leaves: the run begins anew.
    (tmp_path / "run" / "checkpoints" / "ba24-rank0.pt").unlink()
    assert run(tmp_path, single(streams, tmp_path / "run"))["base"].batches == 24


def test_streams_without_a_known_vocabulary_train_no_model(streams, tmp_path):
    shutil.copytree(streams, tmp_path / "plain")
    for manifest in (tmp_path / "plain").rglob("stream.json"):
        manifest.unlink()
    with pytest.raises(StreamError, match="tokenizer is unknown"):
        run(tmp_path, single(tmp_path / "plain", tmp_path / "run"))


def test_streams_without_held_out_splits_are_trained_on_and_not_measured(streams, tmp_path):
    shutil.copytree(streams, tmp_path / "streams")
    for heldout in (tmp_path / "streams").glob("*/heldout"):
        shutil.rmtree(heldout)
    result = run(tmp_path, single(tmp_path / "streams", tmp_path / "run"))["base"]
    assert result.heldout == result.languages == {}


def test_a_checkpoint_of_another_plan_is_refused(streams, tmp_path):
    """By the loader's state: a plan whose recipe file was changed by hand."""
    run(tmp_path, single(streams, tmp_path / "run"))
    (tmp_path / "run" / "result.json").unlink()
    (tmp_path / "run" / "recipe.yaml").unlink()
    with pytest.raises(StateError, match="the state belongs to another plan: seed was 5, is 6"):
        run(tmp_path, single(streams, tmp_path / "run", seed=6))


def test_a_model_whose_loss_is_one_number_is_refused(streams, tmp_path, monkeypatch):
    from composer.models import HuggingFaceModel

    from mixstream.runs.model import CausalLM

    monkeypatch.setattr(CausalLM, "loss", lambda self, outputs, batch: outputs["logits"].mean())
    assert issubclass(CausalLM, HuggingFaceModel)
    with pytest.raises(ScoreError, match=r"the model's loss is \(\), expected one number for each of 5 rows"):
        run(tmp_path, single(streams, tmp_path / "run"))


def test_a_run_that_diverges_says_so(streams, tmp_path):
    training = RUN["training"] | {"learning_rate": 1e30}
    with pytest.raises(
        ScoreError, match=r"batch \d+: the training loss of .* is not a finite number; the run diverged"
    ):
        run(tmp_path, single(streams, tmp_path / "run", training=training))
    assert not (tmp_path / "run" / "result.json").exists()


def test_a_model_that_the_last_batch_spoilt_is_not_taken_for_measured(streams, tmp_path, monkeypatch):
    import mixstream.callbacks.heldout as callback

    losses = callback.row_losses
    monkeypatch.setattr(callback, "row_losses", lambda model, batch: losses(model, batch) * float("nan"))
    with pytest.raises(ScoreError, match=r"batch 24: the held-out loss of ca.tales is nan; the run diverged"):
        run(tmp_path, single(streams, tmp_path / "run"))


def test_a_run_is_not_written_among_the_streams(streams, tmp_path):
    for out in (streams, streams / "run", streams.parent):
        with pytest.raises(StateError, match=r"the run's folder and the streams' .* lie in one another"):
            run(tmp_path, single(streams, out))


def test_a_checkpoint_that_cannot_be_written_ends_the_run_with_its_place(streams, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))  # bytes a file may have: as on a full disk
    try:
        with pytest.raises(StateError, match=r"checkpoints: a checkpoint could not be written \(the disk may be full"):
            run(tmp_path, single(streams, tmp_path / "run"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert run(tmp_path, single(streams, tmp_path / "run"))["base"].batches == 24
