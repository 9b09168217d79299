"""DoGE's and XDoGE's update: numbers computed by hand from the papers' equations, edge cases, and what a run keeps."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixstream.errors import FloorError, MixtureError, ScoreError, StateError, WeightsError
from mixstream.methods.learning.online import Method, Observation
from mixstream.methods.xdoge import (
    XDoGE,
    alignment_scores,
    mirror_step,
    normalised_update,
    scale_free,
    update_weights,
)

ALPHA = np.array([0.5, 0.3, 0.2])
W = np.array([2.0, 1.0, -1.0])
weights_and_scores = st.lists(st.tuples(st.floats(1e-6, 1), st.floats(-1e3, 1e3)), min_size=1, max_size=12).map(
    lambda pairs: (np.array([w for w, _ in pairs]) / sum(w for w, _ in pairs), np.array([s for _, s in pairs]))
)


def seen(weights=ALPHA, signal=W, eta=5e-4, drawn=None, sizes=None):
    count = len(weights)
    return Observation(
        batch=10,
        num_batches=100,
        eta=eta,
        weights=weights,
        shares=weights,
        drawn=np.zeros(count, dtype=np.int64) if drawn is None else np.array(drawn),
        sizes=np.full(count, 100) if sizes is None else np.array(sizes),
        signal=signal,
    )


def test_one_update_gives_the_numbers_of_the_equation():
    """The papers' form, at the learning rate and step that DoGE's authors use."""
    expected = pytest.approx([0.504488, 0.299681, 0.195831], abs=1e-6)
    assert update_weights(ALPHA, W, eta=5e-4, mu=0.05) == expected
    assert XDoGE(mu=0.05).update(seen()) == expected


def test_one_update_gives_the_numbers_of_the_code():
    """DoGE's code: divided by the mean gradient norm, clipped to [0, 5]."""
    updated = normalised_update(ALPHA, W, norms=np.array([1.0, 1.5, 2.0]), eta=5e-4, mu=0.05)
    assert updated == pytest.approx([0.502332, 0.299397, 0.198271], abs=1e-6)


@given(weights_and_scores)
def test_an_update_is_the_softmax_of_logs(case):
    weights, scores = case
    updated = update_weights(weights, scores, eta=1e-3, mu=0.02)
    reference = weights * np.exp(1e-3 * (scores - scores.max()) / 0.02)
    assert updated == pytest.approx(reference / reference.sum(), rel=1e-9)
    assert updated.sum() == pytest.approx(1, abs=1e-12)


@given(weights_and_scores, st.floats(-100, 100))
def test_a_constant_added_to_all_scores_changes_nothing(case, constant):
    weights, scores = case
    shifted = update_weights(weights, scores + constant, eta=1e-3, mu=0.02)
    assert shifted == pytest.approx(update_weights(weights, scores, eta=1e-3, mu=0.02), rel=1e-9)


@given(weights_and_scores, st.floats(0, 1))
def test_the_floor_holds_exactly(case, share):
    weights, scores = case
    floor = share / len(weights)
    updated = update_weights(weights, scores, eta=1e-2, mu=0.001, floor=floor)
    assert updated.min() >= floor - 1e-12
    assert updated.sum() == pytest.approx(1, abs=1e-12)


@given(st.data())
def test_the_step_minimises_what_it_says(data):
    """- a.s + mu KL(a||alpha) + lambda KL(a||prior): no exchange between two streams makes it less."""
    weights, scores = data.draw(weights_and_scores)
    prior = np.array(data.draw(st.lists(st.floats(0.01, 1), min_size=len(weights), max_size=len(weights))))
    prior /= prior.sum()
    mu, strength = data.draw(st.floats(0.1, 2)), data.draw(st.floats(0, 2))
    gains = scores / 1e3
    step = mirror_step(weights, gains, mu, prior, strength)
    slope = -gains + mu * np.log(step / weights) + strength * np.log(step / prior)
    assert slope == pytest.approx(np.full(len(slope), slope.mean()), abs=1e-9)
    assert step.sum() == pytest.approx(1, abs=1e-12)


def test_a_step_without_gains_goes_the_stated_part_of_the_way_to_the_prior():
    prior = np.array([0.2, 0.2, 0.6])
    step = mirror_step(ALPHA, np.zeros(3), mu=0.3, prior=prior, strength=0.1)
    before, after = np.log(ALPHA / prior), np.log(step / prior)
    assert np.diff(after) == pytest.approx(np.diff(before) * 0.3 / 0.4)


def test_steady_scores_under_a_prior_lead_to_their_fixed_point():
    prior = np.array([0.2, 0.2, 0.6])
    method = XDoGE(mu=0.05, prior=prior, prior_strength=0.01)
    weights = ALPHA
    for _ in range(200):
        weights = method.update(seen(weights=weights, eta=0.01))
    expected = prior * np.exp(0.01 * W / 0.01)
    assert weights == pytest.approx(expected / expected.sum())


@pytest.mark.parametrize("count", [70, 10_000])
def test_many_sources_are_as_few(count):
    rng = np.random.default_rng(count)
    weights, scores = rng.dirichlet(np.ones(count)), rng.normal(size=count)
    updated = XDoGE(mu=0.01).update(seen(weights=weights, signal=scores, eta=1e-3))
    reference = weights * np.exp(0.1 * scores)
    assert updated == pytest.approx(reference / reference.sum(), rel=1e-9)


def test_scores_of_zero_leave_the_weights():
    assert update_weights(ALPHA, np.zeros(3), eta=1, mu=0.01) == pytest.approx(ALPHA)
    for form in ("paper", "normalised"):
        assert XDoGE(mu=0.01, form=form, saturation=3.0).update(seen(signal=np.zeros(3))) == pytest.approx(ALPHA)


def test_one_stream_keeps_all():
    assert update_weights(np.ones(1), np.array([-5.0]), eta=1, mu=0.01).tolist() == [1.0]
    for form in ("paper", "normalised"):
        method = XDoGE(mu=0.01, form=form, ema=0.9, prior=np.ones(1), prior_strength=1.0, saturation=1.0)
        assert method.update(seen(weights=np.ones(1), signal=np.array([-5.0]))).tolist() == [1.0]


def test_huge_scores_do_not_overflow():
    updated = update_weights(ALPHA, np.array([1e9, -1e9, 0]), eta=1, mu=1e-3, floor=0.02)
    assert updated == pytest.approx([0.96, 0.02, 0.02])
    greatest = np.array([1e308, -1e308, 0])
    assert update_weights(ALPHA, greatest, eta=1, mu=1e-3) == pytest.approx([1, 0, 0])
    assert scale_free(greatest).tolist() == [1.5, 0, 0]


def test_a_positive_weight_stays_positive_and_comes_back():
    """No score, however bad, ends a source for ever: its logarithm stays within reach."""
    fallen = update_weights(ALPHA, np.array([1e300, 0, 0]), eta=1, mu=1)
    assert (fallen > 0).all()
    assert fallen.sum() == 1
    assert update_weights(fallen, np.array([0, 1e300, 0]), eta=1, mu=1) == pytest.approx([0, 1, 0])


def test_a_weight_of_zero_recovers_only_by_a_floor():
    dead = np.array([1.0, 0.0])
    assert update_weights(dead, np.array([0.0, 9.0]), eta=1, mu=0.1).tolist() == [1.0, 0.0]
    assert mirror_step(dead, np.array([0.0, 9.0]), 0.1, np.array([0.5, 0.5]), 1.0).tolist() == [1.0, 0.0]
    assert update_weights(dead, np.array([0.0, 9.0]), eta=1, mu=0.1, floor=0.1) == pytest.approx([0.9, 0.1])


@pytest.mark.parametrize("form", ["paper", "normalised"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_scores_that_are_not_finite_never_reach_the_weights(bad, form):
    with pytest.raises(ScoreError, match="not finite"):
        update_weights(ALPHA, np.array([1.0, bad, 0.0]), eta=1, mu=1)
    method = XDoGE(mu=1, ema=0.5, form=form)
    method.update(seen())
    before = method.state_dict()
    with pytest.raises(ScoreError, match="not finite.*the weights stay as they were"):
        method.update(seen(signal=np.array([1.0, bad, 0.0])))
    with pytest.raises(ScoreError, match="missing"):
        method.update(seen(signal=None))
    assert method.state_dict() == before


def test_an_infeasible_floor_is_refused():
    with pytest.raises(FloorError, match=r"floor=0\.02 for 70 streams adds up to 1\.4"):
        update_weights(np.full(70, 1 / 70), np.zeros(70), eta=1, mu=1, floor=0.02)


def test_scores_are_inner_products_with_the_sum():
    gradients = np.random.default_rng(0).normal(size=(4, 100))
    scores = alignment_scores(gradients, gradients.sum(axis=0))
    assert scores == pytest.approx([sum(g @ h for h in gradients) for g in gradients])
    assert scores.sum() == pytest.approx((gradients.sum(axis=0) ** 2).sum())  # sum W = |G|^2


@given(weights_and_scores, st.floats(1e-6, 1e6))
def test_the_normalised_form_knows_ratios_only(case, factor):
    weights, scores = case
    once, again = XDoGE(mu=0.01, form="normalised"), XDoGE(mu=0.01, form="normalised")
    updated = once.update(seen(weights=weights, signal=scores))
    assert again.update(seen(weights=weights, signal=factor * scores)) == pytest.approx(updated, rel=1e-9)
    assert scale_free(scores).min() >= 0
    assert scale_free(scores).max() <= 5
    odds = (updated / updated[0]) / (weights / weights[0])
    assert odds.max() / odds.min() <= np.exp(5 * 5e-4 / 0.01) * (1 + 1e-9)  # what DoGE's code allows one update


def test_the_normalised_form_counts_negative_alignment_as_none():
    assert scale_free(W) == pytest.approx([1.5, 0.75, 0])
    updated = XDoGE(mu=0.05, form="normalised").update(seen(eta=0.05))
    assert updated[2] / ALPHA[2] == pytest.approx(1 / (ALPHA * np.exp([1.5, 0.75, 0])).sum())


def test_the_running_mean_of_scores_is_corrected_for_its_beginning():
    """The mean that a method has used, from the weights that it asked for, against the sum written out."""
    rng = np.random.default_rng(1)
    method, history = XDoGE(mu=1.0, ema=0.9), []
    for _ in range(7):
        history.append(rng.normal(size=3))
        wanted = method.update(seen(signal=history[-1], eta=1.0))
        counts = 0.9 ** np.arange(len(history))[::-1]
        mean = (counts[:, None] * np.array(history)).sum(axis=0) / counts.sum()
        assert wanted == pytest.approx(mirror_step(ALPHA, mean, 1.0))


def test_scores_of_what_has_been_repeated_count_less():
    """r = 0.5, 1 and 4 repeats with R* = 3: the first two count in full, the third exp(-1)."""
    drawn = [50, 200, 400]
    wanted = XDoGE(mu=1.0, saturation=3.0).update(seen(eta=1.0, drawn=drawn, sizes=[100, 200, 100]))
    assert wanted == pytest.approx(mirror_step(ALPHA, W * [1, 1, np.exp(-1)], 1.0))
    never = XDoGE(mu=1.0).update(seen(eta=1.0, drawn=drawn, sizes=[100, 200, 100]))
    assert never == pytest.approx(mirror_step(ALPHA, W, 1.0))


def test_a_run_goes_on_from_its_state_as_if_it_had_not_stopped():
    rng = np.random.default_rng(2)
    signals = rng.normal(size=(6, 3))

    def method():
        return XDoGE(mu=0.1, form="normalised", ema=0.7, prior=np.full(3, 1 / 3), prior_strength=0.01, saturation=9.0)

    straight, weights = method(), ALPHA
    course = []
    for signal in signals:
        weights = straight.update(seen(weights=weights, signal=signal, eta=0.1))
        course.append(weights)
    for stop in range(len(signals)):
        begun, resumed = method(), method()
        for signal, at in zip(signals[:stop], [ALPHA, *course], strict=False):
            begun.update(seen(weights=at, signal=signal, eta=0.1))
        resumed.load_state_dict(json.loads(json.dumps(begun.state_dict())))
        weights = course[stop - 1] if stop else ALPHA
        for signal, expected in zip(signals[stop:], course[stop:], strict=True):
            weights = resumed.update(seen(weights=weights, signal=signal, eta=0.1))
            assert weights.tolist() == expected.tolist()


def test_it_is_a_method_that_asks_for_alignment():
    method: Method = XDoGE(mu=0.1)
    assert method.needs == "alignment"
    observed = seen()
    assert method.update(replace(observed, eta=0.0)) == pytest.approx(ALPHA)  # no learning, no move
    with pytest.raises(StateError, match=r"\['rewards'\], XDoGE's holds mean and num_updates"):
        method.load_state_dict({"rewards": [1.0]})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mu": 0}, "mu=0; expected a finite number above 0"),
        ({"mu": float("nan")}, "mu=nan"),
        ({"mu": 1, "form": "papers"}, "form='papers'; expected 'paper' or 'normalised'"),
        ({"mu": 1, "ema": 1.0}, "ema=1.0; expected a share of the past from 0 to below 1"),
        ({"mu": 1, "saturation": 0}, r"saturation=0; expected repeats R\* above 0"),
        ({"mu": 1, "prior_strength": -1}, "prior_strength=-1; expected"),
        ({"mu": 1, "prior_strength": 0.1}, "prior_strength=0.1 without a prior"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(MixtureError, match=message):
        XDoGE(**options)


@pytest.mark.parametrize("prior", [[0.5, 0.5, 0.0], [0.5, 0.4, 0.2], [0.5, 0.5, float("nan")], [-0.5, 1.0, 0.5]])
def test_a_prior_that_is_no_point_of_the_open_simplex_is_refused(prior):
    with pytest.raises(WeightsError, match="the prior is .*; expected a finite weight above 0 for every stream, sum 1"):
        XDoGE(mu=1, prior=np.array(prior), prior_strength=1.0)
