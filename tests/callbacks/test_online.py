"""The callback's manners: when weights are learnt, what acts when, what is refused, what is kept."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from composer import Trainer

from mixstream import build_plan
from mixstream.callbacks.online import OnlineWeights, Timing
from mixstream.callbacks.signals import Measured, NoSignal
from mixstream.callbacks.weighting import LossWeights
from mixstream.errors import ScoreError, StateError, WeightsError
from mixstream.loader import MixtureLoader
from mixstream.methods.learning.bounds import Bounds
from mixstream.methods.learning.history import read_history
from mixstream.methods.learning.learner import Learner
from mixstream.methods.learning.stages import Join, Stages
from mixstream.methods.temperature import TemperatureAnneal
from mixstream.methods.xdoge import XDoGE
from mixstream.runs.model import build_model
from mixstream.runs.recipe import ModelRecipe

MODEL = ModelRecipe(hidden_size=16, intermediate_size=24, num_layers=1, num_heads=2)
UNIFORM = np.full(5, 0.2)
NAN = float("nan")


class Scores(NoSignal):
    """Tells scores that are given: by the batch, and [1, 0, 0, 0, 0] where none are."""

    signal = "alignment"

    def __init__(self, at=None):
        self.at = at or {}
        self.targets = []

    def measure(self, state, targets):
        self.targets.append(targets.tolist())
        scores = self.at.get(int(state.timestamp.batch), [1.0, 0, 0, 0, 0])
        return Measured(np.array(scores), np.ones(5), {"gradient_norm": 2.0})


@pytest.fixture
def plan(catalog):
    return build_plan(catalog, "uniform", 8 * 10 * 30, 10, seed=3)  # 30 batches


def fit(
    plan,
    folder,
    signal,
    method=None,
    *,
    loss_weights=None,
    more=(),
    lag=2,
    until="1ep",
    load=None,
    stages=None,
    floor=0.05,
    **timing,
):
    """Train on the plan, and return the loader, after all batches were noted."""
    model = build_model(MODEL, plan, 0)
    loader = MixtureLoader(plan, weight_lag=lag)
    learner = OnlineWeights(
        loader,
        "ours",
        Learner(method or XDoGE(mu=0.1), Bounds(floor, np.ones(5)), stages or Stages(plan.streams), UNIFORM),
        signal,
        np.ones(5),
        Timing(**({"interval_batches": 5, "eta": 0.1} | timing)),
        folder / "weights.jsonl",
        loss_weights,
    )
    trainer = Trainer(
        model=model,
        train_dataloader=loader,
        max_duration=until,
        callbacks=[learner, *([loss_weights] if loss_weights else []), *more],
        optimizers=torch.optim.SGD(model.parameters(), lr=0.01),
        device="cpu",
        device_train_microbatch_size=5,
        progress_bar=False,
        save_folder=str(folder / "checkpoints"),
        save_interval="7ba",
        save_filename="ba{batch}.pt",
        save_latest_filename=None,
        save_overwrite=True,
        load_path=load,
    )
    try:
        trainer.fit()
    finally:
        trainer.close()
    return loader, learner


def test_each_update_is_logged_and_acts_when_it_says(plan, tmp_path):
    loader, _ = fit(plan, tmp_path, Scores(), warmup_batches=10)
    history = read_history(tmp_path / "weights.jsonl")
    assert [(line.update, line.batch, line.at_batch) for line in history] == [
        (0, 0, 0), (1, 10, 12), (2, 15, 17), (3, 20, 22), (4, 25, 27),
    ]  # fmt: skip
    alpha = UNIFORM
    for line in history[1:]:
        alpha = alpha * np.exp([1.0, 0, 0, 0, 0])  # eta W / mu = 1
        alpha = Bounds(0.05, np.ones(5)).apply(alpha / alpha.sum())
        assert list(line.weights.values()) == pytest.approx(alpha)
        assert line.scores[plan.streams[0]] == 1.0
        assert line.eta == 0.1
    assert loader.ledger().shares[0] / loader.ledger().shares.sum() == pytest.approx(alpha[0], abs=1e-9)


def test_what_is_not_finite_is_refused_and_the_run_goes_on(plan, tmp_path):
    signal = Scores({10: [1, NAN, 0, 0, 0], 15: [float("inf"), 0, 0, 0, 0]})
    with pytest.warns(RuntimeWarning, match="batch 1[05]: no new weights: scores are not finite"):
        fit(plan, tmp_path, signal, max_refused=2, lag=7)
    history = read_history(tmp_path / "weights.jsonl")
    assert [line.refused is None for line in history] == [True, True, False, False, True, True]
    assert history[1].weights == history[2].weights == history[3].weights != history[4].weights
    # Of a refused line the old weights act from when they did: the log says again what the loader was given.
    assert [line.at_batch for line in history] == [0, 12, 12, 12, 27, 32]
    assert history[2].scores == dict(zip(plan.streams, [1, None, 0, 0, 0], strict=True))


def test_too_many_refusals_in_a_row_end_the_run(plan, tmp_path):
    bad = [NAN] * 5
    with (
        pytest.warns(RuntimeWarning, match="no new weights"),
        pytest.raises(ScoreError, match=r"batch 25: 3 updates in a row were refused .* lower the learning rate"),
    ):
        fit(plan, tmp_path, Scores({5: bad, 15: bad, 20: bad, 25: bad}), max_refused=2)
    assert [line.refused is None for line in read_history(tmp_path / "weights.jsonl")] == [1, 0, 1, 0, 0, 0]


@pytest.mark.parametrize("in_loss", [False, True])
def test_a_run_that_was_cut_goes_on_as_if_it_had_not_been(plan, tmp_path, in_loss):
    """Weights, running mean of scores, refusals, shares since the last update: all of it is in the checkpoint."""
    signal = {5: [0, 1.0, 0, 0, 0], 10: [NAN] * 5, 15: [NAN] * 5, 20: [0, 0, 3.0, 0, 0]}

    def weights():
        return LossWeights(UNIFORM) if in_loss else None

    def method():
        return XDoGE(mu=0.1, ema=0.8, saturation=2.0)

    with pytest.warns(RuntimeWarning, match="no new weights"):
        fit(plan, tmp_path / "whole", Scores(signal), method(), loss_weights=weights())
        fit(plan, tmp_path / "cut", Scores(signal), method(), loss_weights=weights(), until="18ba")
        checkpoint = str(tmp_path / "cut" / "checkpoints" / "ba14.pt")
        fit(plan, tmp_path / "cut", Scores(signal), method(), loss_weights=weights(), load=checkpoint)
    assert (tmp_path / "cut" / "weights.jsonl").read_text() == (tmp_path / "whole" / "weights.jsonl").read_text()
    ends = [
        torch.load(tmp_path / one / "checkpoints" / "ba28.pt", weights_only=False)["state"] for one in ("whole", "cut")
    ]
    assert ends[0]["callbacks"]["OnlineWeights"] == ends[1]["callbacks"]["OnlineWeights"]
    assert all(torch.equal(value, ends[1]["model"][name]) for name, value in ends[0]["model"].items())


@pytest.fixture
def without_last(catalog, plan):
    """The plan of a run whose last stream joins later, 30 batches."""
    weights = dict(zip(plan.streams, [0.85, 0.05, 0.05, 0.05, 0.0], strict=True))
    return build_plan(catalog, weights, 8 * 10 * 30, 10, seed=3)


def test_the_log_begins_with_what_was_planned(without_last, tmp_path):
    """Also where stages and floors would have it otherwise: until the first update nothing but the plan acts."""
    joining = Stages(without_last.streams, (Join(without_last.streams[4:], 20),))
    loader, _ = fit(without_last, tmp_path, Scores(), stages=joining, floor=0.1, until="4ba")
    assert list(read_history(tmp_path / "weights.jsonl")[0].weights.values()) == without_last.weights.tolist()
    assert loader.ledger().shares / loader.ledger().shares.sum() == pytest.approx(without_last.weights)


def test_streams_that_join_later_are_read_from_then_on(plan, tmp_path):
    """Stream 4 joins at batch 10 and is wholly there at 20; its share among the learnt weights waits for it."""
    joining = Stages(plan.streams, (Join(plan.streams[4:], 10, 10),))
    signal = Scores({at: [1.0, 0, 0, 0, 99] for at in (5,)})
    fit(plan, tmp_path, signal, stages=joining, lag=0)
    at = {line.batch: list(line.weights.values()) for line in read_history(tmp_path / "weights.jsonl")}
    assert at[0] == plan.weights.tolist()  # it does not know of stages
    assert at[5][4] == 0
    assert at[5][0] > 0.25  # its own 99 counts for nothing before it is there
    assert 0 < at[15][4] < at[20][4]
    assert at[20][4] >= 0.05
    assert all(sum(weights) == pytest.approx(1) for weights in at.values())
    assert signal.targets[0] == [1, 1, 1, 1, 0]
    assert signal.targets[-1] == [1] * 5


def test_stages_act_before_anything_is_learnt(without_last, tmp_path):
    joining = Stages(without_last.streams, (Join(without_last.streams[4:], 5),))
    fit(without_last, tmp_path, Scores(), stages=joining, warmup_batches=20)
    lines = read_history(tmp_path / "weights.jsonl")
    assert [line.batch for line in lines] == [0, 5, 20, 25]
    assert list(lines[1].weights.values()) == pytest.approx([0.2] * 5)
    assert lines[1].scores is None


def test_stages_do_not_wait_for_what_is_refused(without_last, tmp_path):
    joining = Stages(without_last.streams, (Join(without_last.streams[4:], 10),))
    with pytest.warns(RuntimeWarning, match="batch 10: no new weights"):
        fit(without_last, tmp_path, Scores({10: [NAN] * 5}), stages=joining)
    line = read_history(tmp_path / "weights.jsonl")[2]
    assert (line.batch, line.at_batch, line.refused is None) == (10, 12, False)
    assert list(line.weights.values())[4] > 0.05


def test_weights_in_the_loss_leave_the_loader_to_its_plan(plan, tmp_path):
    carried = LossWeights(UNIFORM)
    loader, _ = fit(plan, tmp_path, Scores(), loss_weights=carried)
    assert (loader.ledger().shares / loader.ledger().shares.sum()) == pytest.approx(UNIFORM)
    last = read_history(tmp_path / "weights.jsonl")[-1]
    assert (last.batch, last.at_batch) == (25, 25)  # from the next batch on: no loader has to follow
    assert list(last.weights.values()) == carried.weights.tolist()
    assert last.apply == "loss"  # who reads the data again leaves the loader alone


def test_weights_of_a_loss_that_nothing_weighs_are_refused(plan, tmp_path):
    carried = LossWeights(UNIFORM)
    learner = Learner(XDoGE(mu=1.0), Bounds(0.05, np.ones(5)), Stages(plan.streams), UNIFORM)
    ours = MixtureLoader(plan), "ours", learner, Scores(), np.ones(5), Timing(5), tmp_path / "weights.jsonl", carried
    learns = OnlineWeights(*ours)
    for callbacks in ([learns], [carried, learns]):
        with pytest.raises(
            WeightsError, match=r"not among the Trainer's callbacks after it.*\[learner, loss_weights\]"
        ):
            learns.fit_start(SimpleNamespace(callbacks=callbacks), None)


@pytest.mark.filterwarnings("ignore:No scheduler:UserWarning")
def test_the_learning_rate_is_the_optimizers(plan, tmp_path):
    fit(plan, tmp_path, Scores(), eta=None, until="11ba")
    assert [line.eta for line in read_history(tmp_path / "weights.jsonl")[1:]] == [0.01, 0.01]


def test_a_source_never_counts_twice(plan, tmp_path):
    with pytest.raises(WeightsError, match=r"LossWeights weighs the loss .* a source would count twice; leave it out"):
        fit(plan, tmp_path, Scores(), more=[LossWeights(UNIFORM)])


def test_a_method_is_told_what_it_needs(plan, tmp_path):
    with pytest.raises(WeightsError, match="ours needs the signal None, but 'alignment' is measured"):
        fit(plan, tmp_path, Scores(), TemperatureAnneal(start=1.0, end=3.0))


def test_states_of_others_are_refused(plan, tmp_path, catalog):
    _, learner = fit(plan, tmp_path, Scores(), until="5ba")
    content = json.loads(learner.state_dict()["online"])
    streams = [*plan.streams[:4], "zz.z"]
    with pytest.raises(StateError, match=r"the checkpoint's weights are of .*'zz.z'.*resume with the plan"):
        learner.load_state_dict({"online": json.dumps(content | {"streams": streams})})
    with pytest.raises(StateError, match="were learnt by doremi, not by ours; resume with that method"):
        learner.load_state_dict({"online": json.dumps(content | {"method": "doremi"})})


def test_a_log_that_has_lost_updates_is_refused(plan, tmp_path):
    fit(plan, tmp_path, Scores(), until="15ba")
    log = tmp_path / "weights.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:2]))
    with pytest.raises(StateError, match=r"has 2 whole lines, but the checkpoint is of update 2, the 3th line"):
        fit(plan, tmp_path, Scores(), load=str(tmp_path / "checkpoints" / "ba14.pt"))
