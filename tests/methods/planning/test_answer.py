from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
from bowls import NAMES, Bowl, bowl_table
from hypothesis import given, settings
from hypothesis import strategies as st

from mixstream.errors import BudgetError, FitError, FloorError, RunTableError
from mixstream.methods.baselines import fixed
from mixstream.methods.planning.answer import answer
from mixstream.methods.planning.asked import asked_run
from mixstream.methods.planning.reach import pilots_of
from mixstream.methods.planning.registry import rule
from mixstream.mixture.weights import unimax

SIZES = {"ca": 1e9, "eu": 1e8, "gl": 4e9}
BEST = (0.2, 0.3, 0.5)


@dataclass(frozen=True, eq=False)
class Stubborn(Bowl):
    """A bowl that allocates what it was told to."""

    shares: tuple[float, ...] = (0.8, 0.1, 0.1)
    name: str = "stubborn"

    def allocate(self, *args, **options):
        return np.array(self.shares)


def test_an_answer_has_all_that_was_asked_for():
    table = bowl_table(BEST, noise=0.005, num_runs=30, tokens=1e9)
    given = answer(Bowl(), table, SIZES, 1e9, max_repeats=8, floor=0.01, refits=8)
    assert given.method == "bowl"
    assert given.weights == pytest.approx(dict(zip(NAMES, BEST, strict=True)), abs=0.02)
    assert math.fsum(given.weights.values()) == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(given.repeats, given.proportions * 1e9 / [1e9, 1e8, 4e9])
    assert (given.intervals[:, 0] <= given.proportions + 0.01).all()
    assert (given.intervals[:, 1] >= given.proportions - 0.01).all()
    assert ((given.spread > 0) & (given.spread < 0.05)).all()
    expected = given.expected
    assert expected.targets == NAMES
    assert expected.mean_loss == pytest.approx(expected.losses.mean())
    assert (expected.loss_intervals[:, 0] < expected.losses).all()
    assert (expected.losses < expected.loss_intervals[:, 1]).all()
    assert expected.mean_interval[0] < expected.mean_loss < expected.mean_interval[1]
    assert 0.001 < expected.seen_error < 0.01
    assert 0.001 < expected.heldout_error < 0.02
    assert [one.name for one in given.beside] == ["natural", "uniform", "unimax:4"]
    assert [one.wins for one in given.beside] == [1, 1, 1]
    assert all(one.mean_loss > expected.mean_loss for one in given.beside)
    assert given.reach.tokens_factor == 1
    assert (given.refits, given.failures, given.warnings) == (8, (), ())


def test_without_noise_it_is_the_truth_and_without_refits_it_has_no_intervals():
    table = bowl_table(BEST)
    given = answer(Bowl(), table, SIZES, 1e9)
    np.testing.assert_allclose(given.proportions, BEST, atol=1e-3)
    assert given.intervals is given.spread is given.expected.loss_intervals is given.expected.mean_interval is None
    assert given.expected.seen_error < 1e-9
    assert math.isnan(given.expected.heldout_error)
    assert all(math.isnan(one.wins) for one in given.beside)


def test_baselines_beside_it_are_held_within_floor_and_budgets_and_say_so():
    """eu has 2 % of what there is, and may give 10 % of the run: uniform cannot be had."""
    table = bowl_table(BEST)
    given = answer(Bowl(), table, SIZES, 4e9, max_repeats={"eu": 4, "*": 16}, floor=0.05)
    natural, uniform, most_even = given.beside
    assert natural.held == ("eu",)  # below the floor
    assert uniform.held == ("eu",)
    assert uniform.proportions == pytest.approx([0.45, 0.1, 0.45])
    assert most_even.held == ()
    np.testing.assert_allclose(most_even.proportions, unimax(np.array([*SIZES.values()]), 4, 4e9))
    law = Bowl().fit(table)
    for one in given.beside:
        np.testing.assert_allclose(one.losses, law.predict(one.proportions[None], 4e9)[0])
        assert one.mean_loss == pytest.approx(one.losses.mean())


def test_a_run_that_four_repeats_do_not_supply_is_beside_a_unimax_of_more():
    run = asked_run(NAMES, SIZES, 30e9)
    names = [one.name for one in run.simple_mixtures()]
    assert names == ["natural", "uniform", "unimax:6"]


@given(st.integers(0, 10**6), st.floats(8, 12), st.sampled_from([None, 4.0, {"eu": 2.0, "*": 30.0}]))
@settings(max_examples=40)
def test_what_is_beside_keeps_within_floor_and_budgets(seed, power, max_repeats):
    sizes = dict(zip(NAMES, 10 ** np.random.default_rng(seed).uniform(8, 12, 3), strict=True))
    try:
        run = asked_run(NAMES, sizes, 10**power, max_repeats=max_repeats, floor=0.001)
    except (BudgetError, FloorError):
        return
    for one in run.simple_mixtures():
        assert one.proportions.sum() == pytest.approx(1, abs=1e-9)
        assert (one.proportions >= 0.001 - 2e-6).all()
        assert (one.proportions * 10**power <= run.budgets * run.sizes * (1 + 1e-5) + 1e-5 * 10**power).all()


def test_an_answer_that_loses_by_its_own_law_says_so():
    """PAPERS 3.5: CLIMB's two steps can lose to uniform on the plain sum of losses."""
    table = bowl_table(BEST)
    given = answer(Stubborn(), table, SIZES, 1e9)
    lost = [told for told in given.warnings if told.startswith("by its own law")]
    assert len(lost) == 2  # uniform and UniMax are the same here
    law = Bowl().fit(table)
    means = law.predict(np.array([[0.8, 0.1, 0.1], [1 / 3] * 3]), 1e9).mean(axis=1)
    assert (
        f"by its own law uniform = unimax:4 is better: a mean loss of {means[1]:.5f} is expected of it, {means[0]:.5f} of"
        in lost[1]
    )


def test_targets_weigh_what_is_compared():
    """By the loss of ca alone it is as good as can be, by the mean loss uniform is better."""
    table = bowl_table(BEST)
    ca_only = answer(Stubborn(shares=(0.2, 0.8, 0.0), targets={"ca": 1.0}), table, SIZES, 1e9)
    assert ca_only.expected.target_weights.tolist() == [1, 0, 0]
    assert ca_only.expected.mean_loss == ca_only.expected.losses[0]
    assert not [told for told in ca_only.warnings if "own law" in told]
    assert [told for told in answer(Stubborn(shares=(0.2, 0.8, 0.0)), table, SIZES, 1e9).warnings if "own law" in told]
    with pytest.raises(RunTableError, match="target 'cat' is not in the table of runs; did you mean 'ca'"):
        answer(Stubborn(targets={"cat": 1.0}), table, SIZES, 1e9)


def test_an_advantage_that_refits_do_not_agree_on_is_told():
    table = bowl_table((0.34, 0.33, 0.33), noise=0.1, num_runs=14)
    given = answer(Bowl(), table, SIZES, 1e9, refits=20)
    doubted = [told for told in given.warnings if "is not sure" in told]
    wins = {one.name: one.wins for one in given.beside}
    assert wins["uniform"] < 0.9
    assert any(told.startswith("that it is better than uniform = unimax:4 is not sure:") for told in doubted)
    assert f"{wins['uniform']:.0%} of the refits say so" in " ".join(doubted)


def test_refits_that_fail_are_told():
    table = bowl_table(BEST, noise=0.01, num_runs=6)
    given = answer(Bowl(fewest=4), table, SIZES, 1e9, refits=20)
    assert 0 < len(given.failures) <= 5
    assert (
        f"{len(given.failures)} of 20 refits failed, and the intervals are those of the others (the first: bowl: fewer"
        in " ".join(given.warnings)
    )


def test_an_answer_beyond_the_pilots_says_so():
    given = answer(Bowl(), bowl_table(BEST), SIZES, 1e12, parameters=7e9)
    assert given.reach.tokens_factor == pytest.approx(1000)
    assert [told for told in given.warnings if "the law is extrapolated over tokens" in told]
    assert [told for told in given.warnings if "pilots do not tell their model's size" in told]


def test_a_fitted_planner_needs_no_runs_and_is_told_how_far_it_is_by_its_pilots():
    table = bowl_table(BEST)
    fitted = Bowl().fit(table)
    given = answer(fitted, None, SIZES, 1e10, pilots=pilots_of(table))
    np.testing.assert_array_equal(given.proportions, answer(Bowl(), table, SIZES, 1e10).proportions)
    assert given.reach.tokens_factor == pytest.approx(10)
    assert math.isnan(given.expected.seen_error)
    assert answer(fitted, None, SIZES, 1e10).reach is None
    with pytest.raises(FitError, match="a bootstrap fits to runs again; give the runs"):
        answer(fitted, None, SIZES, 1e10, refits=5)
    with pytest.raises(FitError, match="bowl: has not been fitted"):
        answer(Bowl(), None, SIZES, 1e10)


def test_sizes_may_stand_in_any_order():
    table = bowl_table(BEST)
    options = {"max_repeats": {"eu": 2, "*": 9}}
    one = answer(Bowl(), table, SIZES, 4e9, **options)
    other = answer(Bowl(), table, dict(reversed(SIZES.items())), 4e9, **options)
    assert one.weights == other.weights
    assert one.repeats[1] == pytest.approx(2, rel=1e-6)


def test_a_rule_is_answered_without_a_law():
    given = answer(rule("natural", NAMES), None, SIZES, 1e9)
    np.testing.assert_allclose(given.proportions, np.array([*SIZES.values()]) / 5.1e9)
    assert given.expected is given.reach is given.intervals is None
    assert [one.losses for one in given.beside] == [None] * 3
    assert given.warnings == ()


def test_a_rule_that_is_held_says_so_and_what_is_left_out_stays_out():
    planner = fixed({"ca": 0.4, "eu": 0.6, "gl": 0.0}, NAMES)
    assert answer(planner, None, SIZES, 1e8).proportions.tolist() == [0.4, 0.6, 0.0]
    held = answer(planner, None, SIZES, 1e8, floor=0.1)
    assert held.proportions[2] == pytest.approx(0.1)
    assert held.warnings == (
        "fixed cannot be had: floor and repeat budgets hold gl (1 of 3 sources); this is the nearest that they allow",
    )


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"sizes": SIZES | {"es": 5.0}}, RunTableError, r"'es' \(1 such\) is no source of the runs.*exactly the sources of the runs: ca, eu, gl"),
        ({"sizes": {"ca": 5.0}}, RunTableError, r"'eu' \(2 such\) is in the runs, but has no size"),
        ({"sizes": SIZES | {"eu": 0.0}}, RunTableError, "sizes: 'eu' has 0"),
        ({"sizes": SIZES | {"eu": math.inf}}, RunTableError, "'eu' has infinite unique tokens"),
        ({"tokens": -1.0}, RunTableError, "a run of -1.0 tokens"),
        ({"parameters": 0.0}, RunTableError, "a model of 0.0 parameters"),
        ({"max_repeats": 1, "tokens": 1e12}, BudgetError, "the repeat budgets of its 3 sources supply 5,100,000,000"),
        ({"max_repeats": {"es": 1}}, BudgetError, "max_repeats names 'es'"),
        ({"floor": 0.5}, FloorError, "adds up to 1.5"),
        ({"planner": Stubborn(shares=(0.5, 0.5, 0.5))}, FitError, "stubborn allocated proportions outside floor and budgets .*sum 1.5"),
        ({"planner": Stubborn(shares=(0.0, 0.5, 0.5)), "floor": 0.1}, FitError, "outside floor and budgets .least 0"),
        ({"planner": Stubborn(shares=(0.5, math.nan, 0.5))}, FitError, "outside floor and budgets"),
        ({"planner": rule("natural", NAMES)}, RunTableError, "natural learns nothing from runs; leave runs"),
        ({"refits": 1}, FitError, "bootstrap of 1 refits"),
    ],
)  # fmt: skip
def test_what_has_no_answer_is_refused(change, error, message):
    asked = {"planner": Bowl(), "runs": bowl_table(BEST), "sizes": SIZES, "tokens": 1e9}
    answer(**asked)
    with pytest.raises(error, match=message):
        answer(**asked | change)


def test_a_law_without_finite_losses_is_refused():
    @dataclass(frozen=True, eq=False)
    class Wild(Bowl):
        def predict(self, proportions, tokens, *, parameters=math.nan, unique=None):
            return np.full(proportions.shape, math.nan)

    with pytest.raises(FitError, match="bowl expects losses of this run that are not finite"):
        answer(Wild(), bowl_table(BEST), SIZES, 1e9)


def test_what_a_fit_left_open_is_told():
    @dataclass(frozen=True)
    class Notes:
        notes: tuple[str, ...] = ("two budgets only",)

    @dataclass(frozen=True, eq=False)
    class Noted(Bowl):
        fitted: Notes | None = None

        def fit(self, runs):
            return replace(super().fit(runs), fitted=Notes())

    assert "two budgets only" in answer(Noted(), bowl_table(BEST), SIZES, 1e9).warnings


def test_a_gain_within_the_errors_of_the_law_is_told():
    """What is chosen as best is where the law flatters most, so a gain must be beyond its errors."""
    noisy = answer(Bowl(), bowl_table((0.34, 0.33, 0.33), noise=0.1, num_runs=14), SIZES, 1e9, refits=20)
    (told,) = [own for own in noisy.warnings if own.startswith("the gain over uniform")]
    gain = noisy.beside[1].mean_loss / noisy.expected.mean_loss - 1
    assert 0 < gain < 2 * noisy.expected.heldout_error
    assert f"is {gain:.2%} of the loss, and the law errs by" in told
    exact = answer(Bowl(), bowl_table(BEST), SIZES, 1e9, refits=20)
    assert not [own for own in exact.warnings if own.startswith("the gain over")]
