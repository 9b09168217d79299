"""ADO: planted laws are found again, the curve stays bounded, and the policy is that of the equations."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from observing import NAN, check_resumable, lines_of, observations, seen

from mixstream.errors import FloorError, MixtureError, ScoreError, StateError
from mixstream.methods import ado, power_law
from mixstream.methods.ado import ADO, preference, slopes
from mixstream.methods.learning.curve import MAX_POINTS, LossCurve
from mixstream.methods.power_law import fit_law, law_at

COUNTS = np.linspace(5e3, 2e5, 100)
laws = st.tuples(st.floats(0, 4), st.floats(0.5, 1.2), st.floats(0.05, 0.75)).map(np.array)
SHORT = {"ignore_batches": 0, "start_batches": 30, "refit_batches": 30}


def objective(law, counts, losses):
    """Return the sum of Huber's losses, written out."""
    total = 0.0
    for count, loss in zip(counts, losses, strict=True):
        a, e, alpha = law
        error = abs(np.log(loss) - np.log(np.exp(e) + np.exp(a) * count**-alpha))
        total += error**2 / 2 if error <= 1e-3 else 1e-3 * (error - 1e-3 / 2)
    return total


@settings(max_examples=25)
@given(laws)
def test_a_planted_law_is_found_again(law):
    """Not by its numbers, which a slow fall hardly tells apart, but by what ADO reads of it: the loss and its fall.

    The search ends in the flat valley of such falls, where errors are within Huber's delta of 0.001.
    """
    fitted = fit_law(COUNTS, law_at(law, COUNTS))
    assert law_at(fitted, COUNTS) == pytest.approx(law_at(law, COUNTS), rel=3e-3)
    fall = law[2] * (law_at(law, COUNTS[-1]) - np.exp(law[1]))
    assert fitted[2] * (law_at(fitted, COUNTS[-1]) - np.exp(fitted[1])) == pytest.approx(fall, rel=0.1, abs=1e-3)


def test_a_law_is_exact_without_noise():
    assert fit_law(COUNTS, law_at(np.array([3.2, 0.66, 0.32]), COUNTS)) == pytest.approx([3.2, 0.66, 0.32], rel=1e-4)


@settings(max_examples=10)
@given(laws, st.integers(0, 10**6))
def test_no_law_nearby_and_not_the_planted_one_fits_noise_better(law, seed):
    random = np.random.default_rng(seed)
    losses = law_at(law, COUNTS) * np.exp(0.01 * random.normal(size=len(COUNTS)))
    fitted = fit_law(COUNTS, losses)
    best = objective(fitted, COUNTS, losses)
    assert best <= objective(law, COUNTS, losses) * 1.001
    least = np.array([-10, min(0.5, np.log(losses.min() / 2)), 0.001])
    for _ in range(20):
        other = np.clip(fitted + 0.01 * random.normal(size=3), least, [6.5, 20, 0.8])
        assert objective(other, COUNTS, losses) >= best * 0.999


def test_outliers_hardly_move_a_law():
    losses = law_at(np.array([3.2, 0.66, 0.32]), COUNTS)
    losses[::10] *= 3
    assert fit_law(COUNTS, losses) == pytest.approx([3.2, 0.66, 0.32], rel=1e-2)


def test_a_law_keeps_its_limits():
    rising = fit_law(COUNTS, np.linspace(3, 4, 100))
    assert law_at(rising, COUNTS[[0, -1]]) == pytest.approx([3.5, 3.5], abs=0.02)  # it may not rise
    assert -10 <= rising[0] <= 6.5
    assert 0.001 <= rising[2] <= 0.8
    small = fit_law(COUNTS, law_at(np.array([2.0, -1.0, 0.3]), COUNTS))  # 0.37 nats/token: below exp(0.5)
    assert law_at(small, COUNTS) == pytest.approx(law_at(np.array([2.0, -1.0, 0.3]), COUNTS), rel=1e-2)


def test_too_few_points_give_no_law():
    losses = law_at(np.array([3.0, 0.7, 0.3]), COUNTS)
    assert fit_law(COUNTS[:7], losses[:7]) is None
    assert fit_law(COUNTS, np.where(np.arange(100) < 7, losses, NAN)) is None
    assert fit_law(COUNTS, np.zeros(100)) is None


def test_fitting_twelve_sources_takes_well_under_a_second():
    losses = law_at(np.array([3.2, 0.66, 0.32]), COUNTS) * (1 + 0.01 * np.random.default_rng(0).normal(size=100))
    took = []
    for _ in range(3):
        begun = time.perf_counter()
        for _ in range(12):
            fit_law(COUNTS, losses)
        took.append(time.perf_counter() - begun)
    assert min(took) < 1


def test_slopes_and_preferences_give_the_numbers_of_the_equations():
    """exp(a) = 8, exp(e) = 2, n = 16, alpha = .5: L = 4, slope .5 x 2 / 16; alpha .01 counts as .05."""
    planted = np.array([[np.log(8), np.log(2), 0.5], [np.log(8), np.log(2), 0.01], [NAN] * 3])
    second = 0.05 * 8 * 16**-0.01 / 16
    assert slopes(planted, 16.0) == pytest.approx([0.0625, second, (0.0625 + second) / 2])
    rho = preference(np.array([1.0, 2.0]), np.array([0.5, 0.5]), np.array([0.64, 0.36]), 0.0)
    assert rho == pytest.approx([0.8 / 2.0, 1.2 / 2.0])
    assert preference(np.array([1.0, 0.0, 2.0]), np.full(3, 1 / 3), np.full(3, 1 / 3), 0.01) == pytest.approx(
        [0.33, 0.01, 0.66]
    )
    assert preference(np.zeros(2), np.array([0.3, 0.7]), np.array([0.5, 0.5]), 0.0) == pytest.approx([0.3, 0.7])


parts = st.lists(st.tuples(st.floats(0, 1), st.floats(1e-3, 1), st.floats(0, 1)), min_size=1, max_size=8)


@given(parts, st.floats(0, 1), st.randoms(use_true_random=False))
def test_preferences_keep_the_least_share_and_know_no_order(rows, share, random):
    slope, prior, credit = np.array(rows).T
    least = share / len(rows)
    rho = preference(slope, prior / prior.sum(), credit, least)
    assert rho.sum() == pytest.approx(1, abs=1e-9)
    assert rho.min() >= least - 1e-12
    order = random.sample(range(len(rows)), len(rows))
    moved = preference(slope[order], (prior / prior.sum())[order], credit[order], least)
    assert moved == pytest.approx(rho[order], abs=1e-9)


def curve_losses(batch, planted):
    return [float(law_at(np.array(law), batch * 8.0)) for law in planted]


PLANTED = ([4.0, 0.6, 0.5], [3.0, 0.9, 0.3], [-9.0, 1.1, 0.5])  # the last has nothing more to learn


def run(method, batches, interval=5, change=None):
    """Return what a method wants at each update of a run on planted laws that follows it."""
    weights, wanted = np.full(3, 1 / 3), []
    for batch in range(interval, batches + 1, interval):
        signal = curve_losses(batch, PLANTED)
        told = seen(signal, weights, batch=batch, num_batches=10_000, shares=weights, drawn=[batch * 8, 0, 0])
        weights = method.update(change(told) if change else told)
        wanted.append(weights)
    return np.array(wanted)


def test_before_the_first_fit_the_weights_stay():
    wanted = run(ADO(**SHORT | {"start_batches": 100}), 95)
    assert (wanted == 1 / 3).all()


def test_weight_goes_to_what_is_still_learnt():
    wanted = run(ADO(ignore_batches=0, start_batches=60, refit_batches=200), 2000)
    assert wanted.sum(axis=1) == pytest.approx(np.ones(len(wanted)))
    assert wanted[-1, 2] < 0.05
    assert wanted[-1, 0] > 1 / 3


def test_the_policy_is_that_of_the_steps_one_by_one():
    """An update of 5 batches against 5 steps at the same law, preference and shares, written out."""
    method = ADO(**SHORT)
    run(method, 60)
    state = method.state_dict()
    average, credit = np.array(state["average"]), np.array(state["credit"])
    fitted, prior = np.array(state["laws"]), np.array(state["prior"])
    shares = np.array([0.5, 0.3, 0.2])
    told = seen(curve_losses(65, PLANTED), batch=65, num_batches=10_000, shares=shares, drawn=[65 * 8, 0, 0])
    wanted = method.update(told)
    for _ in range(61, 66):
        credit = 0.9 * credit + 0.1 * shares
    n = 65 * 8
    losses = np.exp(fitted[:, 1]) + np.exp(fitted[:, 0]) * n ** -fitted[:, 2]
    rho = prior * np.sqrt(credit) * np.maximum(fitted[:, 2], 0.05) * (losses - np.exp(fitted[:, 1])) / n
    rho = rho / rho.sum()
    floored = rho < 0.01
    rho = np.where(floored, 0.01, rho * (1 - 0.01 * floored.sum()) / rho[~floored].sum())
    assert wanted == pytest.approx(0.9 * average + 0.1 * rho)
    for step in range(61, 66):
        average = (1 - 1 / (step + 1)) * average + rho / (step + 1)
    assert method.state_dict()["average"] == pytest.approx(average)


def test_sources_in_another_order_get_the_same_weights():
    order = [2, 0, 1]

    def moved(told):
        return seen(
            told.signal[order], told.weights, batch=told.batch, num_batches=10_000, shares=told.shares, drawn=told.drawn
        )

    straight = run(ADO(**SHORT), 100)
    assert run(ADO(**SHORT), 100, change=moved) == pytest.approx(straight[:, order])


@pytest.mark.parametrize("outcome", [None, "few points"])
def test_a_fit_that_fails_keeps_the_law(monkeypatch, outcome):
    method = ADO(**SHORT)
    run(method, 60)
    known = method.state_dict()["laws"]
    if outcome is None:
        monkeypatch.setattr(ado, "fit_law", lambda counts, losses: None)
    else:
        monkeypatch.setattr(power_law, "MIN_POINTS", 10**6)
    told = seen(curve_losses(90, PLANTED), batch=90, num_batches=10_000)
    assert np.isfinite(method.update(told)).all()
    assert method.state_dict()["fitted"] == 90
    assert method.state_dict()["laws"] == known


def test_a_source_that_is_hardly_read_has_no_law_and_gets_a_share_all_the_same():
    def rare(told):
        signal = told.signal.copy()
        signal[1] = NAN
        return seen(signal, told.weights, batch=told.batch, num_batches=10_000, drawn=told.drawn)

    method = ADO(**SHORT)
    wanted = run(method, 200, change=rare)
    assert method.state_dict()["laws"][1] is None
    assert wanted[-1, 1] >= 0.009
    assert np.isfinite(wanted).all()


def test_the_curve_is_bounded_and_keeps_the_mean_of_what_was_told():
    curve = LossCurve()
    told = [(float(n), np.array([3.0 + 1 / n, NAN if n % 2 else 5.0])) for n in range(1, 2049)]
    for number, (count, losses) in enumerate(told, start=1):
        curve.add(count, losses)
        assert len(curve.points()[0]) < MAX_POINTS
        assert number < MAX_POINTS or len(curve.points()[0]) >= MAX_POINTS // 2
    counts, losses = curve.points()
    assert np.diff(counts) == pytest.approx(np.full(len(counts) - 1, counts[1] - counts[0]))
    assert counts.mean() == pytest.approx(np.mean([count for count, _ in told]))
    assert losses[:, 0].mean() == pytest.approx(np.mean([own[0] for _, own in told]))
    assert losses[:, 1] == pytest.approx(np.full(len(counts), 5.0))


def test_a_long_runs_state_is_small():
    method = ADO(**SHORT | {"refit_batches": 10_000})
    for batch in range(10, 6_000, 10):
        method.update(seen(np.random.default_rng(batch).random(12) + 2, batch=batch, num_batches=10_000))
    assert len(json.dumps(method.state_dict())) < 40_000


@settings(max_examples=10)
@given(lines_of(3, st.floats(0, 20)))
def test_it_goes_on_from_a_checkpoint_at_every_position(lines):
    check_resumable(lambda: ADO(**SHORT), observations(lines, interval=5))


def test_it_goes_on_from_a_checkpoint_over_fits_and_thinning(monkeypatch):
    monkeypatch.setattr("mixstream.methods.learning.curve.MAX_POINTS", 16)
    random = np.random.default_rng(0)
    lines = [[*(2 + random.random(2)), NAN if random.random() < 0.3 else 3.0] for _ in range(24)]
    check_resumable(lambda: ADO(**SHORT | {"refit_batches": 50}), observations(lines, interval=5))


def test_a_loss_that_is_no_number_changes_nothing():
    method = ADO(**SHORT)
    run(method, 60)
    before = method.state_dict()
    with pytest.raises(ScoreError, match=r"training losses of sources number \[2\]"):
        method.update(seen([2.0, 3.0, NAN], batch=65, num_batches=10_000, shares=[0.5, 0.3, 0.2]))
    assert method.state_dict() == before


def test_what_cannot_be_is_refused():
    with pytest.raises(MixtureError, match=r"ADO fits its first laws after 1000 batches, the run has 400; lower"):
        ADO().update(seen([2.0, 3.0], num_batches=400))
    with pytest.raises(MixtureError, match=r"ignore_batches=5, start_batches=5, refit_batches=1; expected 0 <= ignore"):
        ADO(ignore_batches=5, start_batches=5, refit_batches=1)
    with pytest.raises(MixtureError, match=r"least=2; expected a share from 0 to 1"):
        ADO(least=2)
    with pytest.raises(FloorError, match=r"floor=0\.4 for 3 streams adds up to 1\.2"):
        ADO(least=0.4, **SHORT).update(seen([2.0, 3.0, 4.0]))
    method = ADO(**SHORT)
    method.update(seen([2.0, 3.0]))
    with pytest.raises(StateError, match="ADO's state is of 2 sources, the run has 3"):
        method.update(seen([2.0, 3.0, 4.0]))
