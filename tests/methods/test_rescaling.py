from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixstream.errors import BudgetError, MixtureError, WeightsError
from mixstream.methods.rescaling import rescale, target_size

WEIGHTS = np.array([0.5, 0.3, 0.2])
SIZES = np.array([1000, 200, 40])

corpora = st.lists(st.tuples(st.integers(0, 1000), st.integers(1, 10**12)), min_size=1, max_size=80).filter(
    lambda parts: any(weight for weight, _ in parts)
)


def arrays(parts):
    weights = np.array([weight for weight, _ in parts], dtype=np.float64)
    return weights / weights.sum(), np.array([size for _, size in parts])


def test_a_mixture_of_a_given_size():
    """0.5, 0.3 and 0.2 of 800 tokens: less than a copy, one and a fifth, four whole ones."""
    assert target_size(WEIGHTS, SIZES, "budget", budget_tokens=800) == 800
    rescaled = rescale(WEIGHTS, SIZES, 800)
    assert rescaled.tokens.tolist() == [400, 240, 160]
    assert rescaled.copies.tolist() == [0, 1, 4]
    assert rescaled.remainder.tolist() == [400, 40, 0]
    assert rescaled.repeats == pytest.approx([0.4, 1.2, 4.0])


def test_the_modes_choose_the_size_that_they_say():
    assert target_size(WEIGHTS, SIZES, "keep_total") == 1240
    assert target_size(WEIGHTS, SIZES, "keep_largest") == 200  # 40 / 0.2
    assert target_size(WEIGHTS, SIZES, "cap", max_repeats=4.0) == 800
    assert target_size(WEIGHTS, SIZES, "cap", max_repeats=np.array([1, 2, np.inf])) == 1333  # 200 x 2 / 0.3
    nothing_of_the_third = np.array([0.5, 0.5, 0])
    assert target_size(nothing_of_the_third, np.array([1000, 200, 0]), "keep_largest") == 400


@given(corpora, st.integers(1, 10**15))
def test_tokens_sum_to_the_target_and_are_within_one_of_the_share(parts, target):
    weights, sizes = arrays(parts)
    rescaled = rescale(weights, sizes, target)
    assert sum(rescaled.tokens.tolist()) == target
    total = sum(Fraction(repr(weight)) for weight in weights.tolist())
    for given_tokens, weight in zip(rescaled.tokens.tolist(), weights.tolist(), strict=True):
        assert abs(given_tokens - Fraction(repr(weight)) / total * target) < 1
    assert (rescaled.tokens[weights == 0] == 0).all()
    assert (rescaled.copies * sizes + rescaled.remainder == rescaled.tokens).all()
    assert ((rescaled.remainder >= 0) & (rescaled.remainder < sizes)).all()


@given(corpora)
def test_the_largest_mixture_repeats_nothing_and_a_larger_one_would(parts):
    weights, sizes = arrays(parts)
    if (sizes / np.where(weights > 0, weights, np.inf)).max() < 1:
        return
    target = target_size(weights, sizes, "keep_largest")
    assert (rescale(weights, sizes, target).tokens <= sizes).all()
    total = sum(Fraction(repr(weight)) for weight in weights.tolist())
    shares = [Fraction(repr(weight)) / total for weight in weights.tolist()]
    assert any(share * (target + 1) > size for share, size in zip(shares, sizes.tolist(), strict=True))


@given(corpora, st.integers(1, 40))
def test_a_capped_mixture_keeps_within_the_repeats(parts, max_repeats):
    weights, sizes = arrays(parts)
    target = target_size(weights, sizes, "cap", max_repeats=float(max_repeats))
    assert (rescale(weights, sizes, target).tokens <= max_repeats * sizes).all()


@pytest.mark.parametrize(
    ("weights", "sizes", "mode", "options", "error", "message"),
    [
        (WEIGHTS, SIZES, "budget", {}, MixtureError, "mode 'budget' with budget_tokens=None; budget_tokens belongs"),
        (WEIGHTS, SIZES, "cap", {}, MixtureError, "mode 'cap' with max_repeats=None"),
        (WEIGHTS, SIZES, "keep_total", {"budget_tokens": 5}, MixtureError, "'keep_total' with budget_tokens=5"),
        (WEIGHTS, SIZES, "budget", {"budget_tokens": 5, "max_repeats": 2.0}, MixtureError, "belongs to mode 'cap'"),
        (WEIGHTS, SIZES, "keep", {}, MixtureError, "mode 'keep'; expected budget, keep_total, keep_largest or cap"),
        (WEIGHTS, SIZES, "budget", {"budget_tokens": 0}, BudgetError, "the target is 0 tokens"),
        (WEIGHTS, SIZES, "cap", {"max_repeats": np.inf}, BudgetError, "nothing limits the target"),
        (WEIGHTS, SIZES, "cap", {"max_repeats": 0.0}, BudgetError, "expected numbers above 0"),
        (WEIGHTS, SIZES, "cap", {"max_repeats": 1e-6}, BudgetError, "the target is 0 tokens"),
        (WEIGHTS, np.array([1000, 0, 0]), "keep_total", {}, BudgetError, r"eu, gl \(2 sources\) has weight but no tok"),
        (WEIGHTS, np.array([1000, 5, -1]), "keep_total", {}, BudgetError, "expected tokens, 0 or more"),
        (np.array([0.5, 0.5]), SIZES, "keep_total", {}, WeightsError, "2 weights for 3 sources"),
        (np.array([0.5, 0.5, 0.5]), SIZES, "keep_total", {}, WeightsError, "at least 0 with the sum 1"),
        (np.zeros(3), SIZES, "keep_largest", {}, WeightsError, "at least 0 with the sum 1"),
        (np.array([0.5, 0.5, float("nan")]), SIZES, "keep_total", {}, WeightsError, "finite numbers"),
    ],
)
def test_what_cannot_be_rescaled_is_refused(weights, sizes, mode, options, error, message):
    with pytest.raises(error, match=message):
        target_size(weights, sizes, mode, names=("ca", "eu", "gl"), **options)


def test_a_target_of_nothing_is_refused():
    with pytest.raises(BudgetError, match="the target is -1 tokens"):
        rescale(WEIGHTS, SIZES, -1)
    with pytest.raises(BudgetError, match="source 1 "):
        rescale(WEIGHTS, np.array([10, 0, 10]), 5)
