"""The repetition-aware law: the papers' equation, its slopes, its best share, and sizes from 1e5 to 1e13 tokens."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixstream.errors import FitError
from mixstream.methods.mixture_law.law import LossLaw, best_share, least_on_log_grid

BILLION = 1e9


def law_of_target(e=2.0, a=8.0, alpha=0.3, tau=20.0, saturation=12.0, gamma=0.05, reference=BILLION, **size) -> LossLaw:
    """Return the paper's law of (target, generic); its numbers are the synthetic fixture's, tokens in billions."""
    transfer, penalty = np.array([tau, 1.0]), np.array([gamma, 0.0])
    return LossLaw(e, a, alpha, transfer, np.full(2, saturation), penalty, reference_tokens=reference, **size)


def losses_at(law, shares, tokens, unique, parameters=math.nan):
    shares = np.asarray(shares, dtype=float)
    count = len(shares)
    sizes = np.tile([unique, np.inf], (count, 1))
    both = np.stack([shares, 1 - shares], axis=1)
    return law.losses(both, np.full(count, tokens), np.full(count, parameters), sizes)


FIXTURE = [  # D, D_target in billions; h*, r*, L* as they are printed of a grid
    (5, 0.05, "0.3530", "35.30", "5.53001"),
    (20, 0.05, "0.0898", "35.93", "4.87253"),
    (100, 0.05, "0.0179", "35.86", "3.95084"),
    (20, 0.25, "0.4256", "34.05", "4.23278"),
    (100, 1, "0.3325", "33.25", "3.44718"),
]


@pytest.mark.parametrize(("tokens", "unique", "share", "repeats", "loss"), FIXTURE)
def test_the_fixture_to_its_digits(tokens, unique, share, repeats, loss):
    """On the fixture's own grid the best point has its digits; the exact best share is within a step of it."""
    grid = np.logspace(-4, 0, 20001) * 0.999
    losses = losses_at(law_of_target(), grid, tokens * BILLION, unique * BILLION)
    best = int(losses.argmin())
    assert f"{grid[best]:.4f}" == share
    assert f"{grid[best] * tokens / unique:.2f}" == repeats
    assert f"{losses[best]:.5f}" == loss
    exact = best_share(law_of_target(), tokens * BILLION, unique * BILLION)
    assert exact.share == pytest.approx(grid[best], rel=grid[1] / grid[0] - 1)
    assert exact.repeats == pytest.approx(exact.share * tokens / unique)
    assert f"{exact.loss:.5f}" == loss
    assert exact.loss <= losses[best]
    assert not exact.at_edge


def slow_loss(law, shares, tokens, parameters, unique):
    """The docstring's equation, a source at a time, with none of the care for digits."""
    effective = 0.0
    for i, share in enumerate(shares):
        seen = share * tokens
        repeats = seen / unique[i]
        if repeats > 1:
            seen = unique[i] * (1 + law.saturation[i] * (1 - math.exp(-(repeats - 1) / law.saturation[i])))
        effective += law.transfer[i] * seen
    data = law.scale * (effective / law.reference_tokens) ** -law.exponent
    capacity = 0.0
    if law.any_size:
        data *= (parameters / law.reference_parameters) ** law.size_exponent
        capacity = law.capacity * (parameters / law.reference_parameters) ** -law.capacity_exponent
    return law.floor + capacity + data + sum(law.penalty[i] * share for i, share in enumerate(shares))


@st.composite
def laws_and_runs(draw):
    """Return a law over 2 to 5 sources, and a run: shares (1, K), D (1,), N (1,), U (1, K)."""
    random = np.random.default_rng(draw(st.integers(0, 10**6)))
    count = draw(st.integers(2, 5))
    tokens = 10 ** draw(st.floats(5, 13))
    size = {}
    if draw(st.booleans()):
        size = {"capacity": 0.7, "capacity_exponent": 0.3, "size_exponent": 0.2, "reference_parameters": 1e8}
    law = LossLaw(
        floor=random.uniform(1, 2),
        scale=random.uniform(0.5, 5),
        exponent=random.uniform(0.1, 0.6),
        transfer=random.uniform(0.02, 1, count),
        saturation=random.uniform(2, 30, count),
        penalty=random.normal(size=count) / 5,
        reference_tokens=tokens * random.uniform(0.1, 10),
        **size,
    )
    shares = random.dirichlet(np.ones(count))[None]
    unique = tokens * np.exp(random.uniform(np.log(0.002), np.log(5), count))[None]
    return law, (shares, np.array([tokens]), 10 ** random.uniform(6, 11, 1), unique)


@given(laws_and_runs())
def test_losses_are_those_of_the_slow_reference(case):
    law, (shares, tokens, parameters, unique) = case
    expected = slow_loss(law, shares[0], tokens[0], parameters[0], unique[0])
    assert law.losses(shares, tokens, parameters, unique)[0] == pytest.approx(expected, rel=1e-9)


@given(laws_and_runs())
def test_slopes_are_the_differences_of_losses(case):
    law, (shares, tokens, parameters, unique) = case
    slopes = law.slopes(shares, tokens, parameters, unique)[0]
    for i, slope in enumerate(slopes):
        step = 1e-6 * np.eye(len(slopes))[i]
        above, below = (law.losses(shares + sign * step, tokens, parameters, unique)[0] for sign in (1, -1))
        assert (above - below) / 2e-6 == pytest.approx(slope, rel=1e-3, abs=1e-5)


@settings(max_examples=30)
@given(
    st.floats(5, 13), st.floats(-3.5, -1), st.floats(0.15, 0.5), st.floats(1, 60), st.floats(2, 30), st.floats(0, 0.5)
)
def test_no_share_is_better_than_the_best(log_tokens, log_pool, alpha, tau, saturation, gamma):
    tokens = 10**log_tokens
    law = law_of_target(alpha=alpha, tau=tau, saturation=saturation, gamma=gamma, reference=tokens)
    best = best_share(law, tokens, tokens * 10**log_pool)
    grid = np.geomspace(1e-5, 1, 3001)
    assert best.loss <= losses_at(law, grid, tokens, tokens * 10**log_pool).min() + 1e-12
    assert best.at_edge == (best.share in (1e-5, 1))


def test_the_scale_of_tokens_does_not_matter():
    """The same law in another unit of tokens has the same answers, from 1e5 to 1e13."""
    told = [best_share(law_of_target(reference=tokens / 20), tokens, tokens / 400) for tokens in (1e5, 2e10, 1e13)]
    for one in told:
        assert one.share == pytest.approx(0.0898206, rel=1e-5)
        assert one.loss == pytest.approx(4.872531, abs=1e-6)


def test_only_the_target_and_nothing_of_it():
    """At h = 1, D_eff = tau D_T; at h = 0 of all that teaches, the loss is huge and finite, and so are slopes."""
    law = law_of_target()
    full = losses_at(law, [1.0], 5 * BILLION, 0.05 * BILLION)[0]
    effective = 20 * 0.05 * (1 + 12 * (1 - math.exp(-99 / 12)))
    assert full == pytest.approx(2 + 8 * effective**-0.3 + 0.05, rel=1e-12)
    deaf = LossLaw(2, 8, 0.3, np.array([1.0, 0.0]), np.full(2, 9.0), np.zeros(2))
    run = (np.array([[0.0, 1.0]]), np.array([1e9]), np.array([math.nan]), np.array([[1e8, 1e8]]))
    assert 2 < deaf.losses(*run)[0] < math.inf
    assert np.isfinite(deaf.slopes(*run)).all()
    assert deaf.slopes(*run)[0, 0] < -1e6


def test_with_repeats_that_lose_nothing_sizes_do_not_matter():
    law = law_of_target(saturation=math.inf)
    few, many = (losses_at(law, [0.1, 0.5], BILLION, unique) for unique in (1e6, 1e9))
    assert few == pytest.approx(many, rel=1e-12)


def test_the_law_of_any_size():
    law = law_of_target(capacity=0.9, capacity_exponent=0.4, size_exponent=0.15, reference_parameters=1e8)
    small = losses_at(law, [0.2], 5 * BILLION, 0.05 * BILLION, 1e8)[0]
    assert small == pytest.approx(losses_at(law_of_target(), [0.2], 5 * BILLION, 0.05 * BILLION)[0] + 0.9)
    shares = [best_share(law, 20 * BILLION, 0.5 * BILLION, parameters=n).share for n in (1e8, 1e9, 1e10)]
    assert shares[0] < shares[1] < shares[2]  # delta > 0: the data term, against which gamma stands, grows with N


@pytest.mark.parametrize("bad", [0.0, -5.0, math.nan, math.inf])
def test_tokens_and_sizes_that_are_none_are_refused(bad):
    with pytest.raises(FitError, match=r"tokens: found .*, expected a finite number above 0"):
        best_share(law_of_target(), bad, 1e8)
    with pytest.raises(FitError, match=r"unique tokens of the target: found"):
        best_share(law_of_target(), 1e9, bad)


@pytest.mark.parametrize("within", [(0, 1), (0.5, 0.5), (0.1, 1.5), (0.5, 0.1)])
def test_shares_that_cannot_be_are_refused(within):
    with pytest.raises(FitError, match="expected 0 < least < greatest <= 1"):
        best_share(law_of_target(), 1e9, 1e8, within=within)


def test_a_law_that_is_finite_nowhere_is_no_answer():
    with pytest.raises(FitError, match=r"the best split: the law is finite nowhere in \[0.1, 1\]"):
        least_on_log_grid(lambda x: np.full_like(x, np.nan), (0.1, 1), of="the best split")


def test_the_least_at_an_end_is_that_end():
    assert least_on_log_grid(lambda x: x, (0.1, 1), of="x") == (0.1, 0.1)
    assert least_on_log_grid(lambda x: -x, (0.1, 1), of="x") == (1.0, -1.0)
