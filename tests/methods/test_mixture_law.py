"""The planner of the repetition-aware law: planted laws are found again, allocated by, and bad tables refused."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from repeating import BILLION, SETS, language_pilots, languages, law_of_target, pilots

from mixstream.errors import BudgetError, FitError, FloorError, RunTableError
from mixstream.methods.mixture_law import FittedMixture, MixtureLaw
from mixstream.methods.mixture_law.fit import form_of
from mixstream.methods.mixture_law.law import best_share
from mixstream.methods.planning.planner import Planner
from mixstream.methods.planning.table import table_of

FREE = np.full(2, np.inf)


def test_it_is_a_planner():
    planner: Planner = MixtureLaw()
    assert planner.name == "repetition"


@pytest.mark.parametrize("numbers", SETS)
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e3])
def test_a_planted_law_is_exact_without_noise(numbers, scale):
    """At 1e5, 1e9 and 1e12 tokens of a pilot."""
    truth = law_of_target(*numbers, reference=BILLION * scale)
    found = MixtureLaw().fit(pilots(truth, scale=scale)).fitted
    e, a, alpha, tau, saturation, gamma = numbers
    law = found.laws[0]
    assert (law.floor, law.exponent, law.penalty[0]) == pytest.approx((e, alpha, gamma), rel=1e-4)
    assert law.transfer[0] / law.transfer[1] == pytest.approx(tau, rel=1e-4)
    assert law.saturation == pytest.approx([saturation] * 2, rel=1e-4)
    at_reference = (law.scale * (law.transfer[1]) ** -alpha) * (BILLION * scale / law.reference_tokens) ** -alpha
    assert at_reference == pytest.approx(a, rel=1e-3)
    assert found.transfer.max() == 1
    assert found.error[0] < 1e-6
    assert found.notes == ()


def test_planted_best_shares_are_recovered_from_noisy_pilots():
    """|log10 h*| apart with 1 % noise, at the pilots' budget and four times it: median and worst below 0.1."""
    apart = []
    for numbers in SETS:
        truth = law_of_target(*numbers)
        for seed in range(2):
            found = MixtureLaw().fit(pilots(truth, 0.01, seed)).fitted.laws[0]
            for tokens, pool in ((16, 1 / 400), (16, 1 / 100), (64, 1 / 400), (64, 1 / 100)):
                at = (tokens * BILLION, tokens * pool * BILLION)
                apart.append(abs(math.log10(best_share(found, *at).share / best_share(truth, *at).share)))
    assert np.median(apart) < 0.02
    assert max(apart) < 0.1


def test_a_law_of_three_model_sizes_is_exact_without_noise():
    truth = replace(
        law_of_target(*SETS[0]), capacity=0.8, capacity_exponent=0.35, size_exponent=0.1, reference_parameters=1e8
    )
    planner = MixtureLaw().fit(pilots(truth, sizes=(5e7, 1e8, 4e8)))
    law = planner.fitted.laws[0]
    assert (law.floor, law.capacity_exponent, law.size_exponent) == pytest.approx((2.0, 0.35, 0.1), rel=1e-3)
    unique = np.array([0.05 * BILLION, np.inf])
    for size in (1e8, 7e9):
        best = planner.allocate(20 * BILLION, unique, FREE, parameters=size)
        assert best[0] == pytest.approx(
            best_share(truth, 20 * BILLION, 0.05 * BILLION, parameters=size).share, rel=1e-3
        )
    with pytest.raises(FitError, match="several model sizes; tell the parameters of the model"):
        planner.allocate(20 * BILLION, unique, FREE)
    with pytest.raises(FitError, match="several model sizes; tell the parameters of the model"):
        planner.predict(np.array([[0.5, 0.5]]), BILLION)


def planned_by(laws, **options):
    """Return a planner of laws that are given."""
    names, nothing = tuple(f"s{number}" for number in range(len(laws[0].transfer))), np.full(len(laws), math.nan)
    fitted = FittedMixture(names, names[: len(laws)], tuple(laws), (1, 1), (math.nan, math.nan), nothing, nothing)
    return MixtureLaw(fitted=fitted, **options)


@pytest.mark.parametrize("count", [3, 6])
def test_several_sources_recover_transfer_and_the_loss_of_the_optimum(count):
    """With 1 % noise: tau within 20 % at the median, and the allocation's loss within 0.5 % of the least there is."""
    laws, unique = languages(count, seed=count)
    found = MixtureLaw().fit(language_pilots(laws, unique, 12 * count, 0.01))
    known = np.array([law.transfer for law in laws])
    assert np.median(np.abs(np.log(found.fitted.transfer / known))) < 0.2
    truth = planned_by(laws)
    both = [one.allocate(32e9, unique, np.full(count, np.inf)) for one in (found, truth)]
    cost, best = truth.predict(np.array(both), 32e9, unique=unique).mean(axis=1)
    assert best <= cost <= best * 1.005


def test_the_transfer_of_several_sources_is_exact_without_noise():
    laws, unique = languages(4, seed=1)
    found = MixtureLaw().fit(language_pilots(laws, unique, 60, 0.0)).fitted
    assert found.transfer == pytest.approx(np.array([law.transfer for law in laws]), rel=1e-3)


def test_each_source_may_have_its_own_saturation():
    laws, unique = languages(3, seed=2)
    laws = [replace(law, saturation=np.array([3.0, 12.0, 30.0])) for law in laws]
    runs = language_pilots(laws[:1], unique, 60, 0.0)
    found = MixtureLaw(each_saturation=True).fit(runs).fitted
    for law in found.laws:
        assert law.saturation == pytest.approx([3, 12, 30], rel=1e-2)
    assert MixtureLaw().fit(runs).fitted.error.min() > 10 * found.error.max()


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.floats(0, 0.1), st.floats(0.5, 30), st.floats(0.3, 3))
def test_no_allocation_within_bounds_is_better(seed, floor, budget, times):
    """Beside the answer: random proportions within floor and budgets, pulled towards it too."""
    laws, unique = languages(4, seed)
    tokens = times * unique.sum()
    weights = {"s0": 3.0, "s2": 1.0}
    planner = planned_by(laws, targets=weights)
    budgets = np.full(4, max(budget, 1.05 * times, 1.05 * floor * tokens / unique.min()))
    best = planner.allocate(tokens, unique, budgets, floor=floor)
    most = np.minimum(1, budgets * unique / tokens)
    assert best.sum() == pytest.approx(1, abs=1e-12)
    assert (best >= floor - 1e-12).all()
    assert (best <= most + 1e-12).all()

    def cost(shares):
        return planner.predict(shares, tokens, unique=unique) @ np.array([0.75, 0, 0.25, 0])

    random = np.random.default_rng(seed)
    others = random.dirichlet(np.ones(4), 4000)
    others = np.vstack([best + pull * (others - best) for pull in (1, 0.1, 0.01)])
    others = others[((others >= floor) & (others <= most)).all(axis=1)]
    assert cost(best[None])[0] <= cost(others).min(initial=np.inf) + 1e-9


@pytest.mark.parametrize("tokens", [1e5, 2e10, 1e13])
@pytest.mark.parametrize("pool", [1 / 4000, 1 / 400, 1 / 80])
def test_the_allocation_of_two_sources_is_the_best_share(tokens, pool):
    law = law_of_target(*SETS[0], reference=tokens / 20)
    best = planned_by([law]).allocate(tokens, np.array([tokens * pool, np.inf]), FREE)
    expected = best_share(law, tokens, tokens * pool)
    assert best[0] == pytest.approx(expected.share, rel=1e-3)


def test_budgets_hold_repeats_back():
    law = law_of_target(*SETS[0])
    shares = planned_by([law]).allocate(20e9, np.array([0.05e9, np.inf]), np.array([4.0, np.inf]))
    assert shares == pytest.approx([4 * 0.05 / 20, 0.99])


def test_a_fit_starts_from_the_one_before():
    """On other rows it finds what a fit from nothing finds, and the first planner stays as it was."""
    runs = pilots(law_of_target(*SETS[1]), 0.01)
    first = MixtureLaw().fit(runs)
    before = first.fitted
    rows = runs.rows(np.random.default_rng(0).integers(0, len(runs), len(runs)))
    again, afresh = first.fit(rows).fitted.laws[0], MixtureLaw().fit(rows).fitted.laws[0]
    assert again.saturation == pytest.approx(afresh.saturation, rel=1e-3)
    assert again.exponent == pytest.approx(afresh.exponent, rel=1e-3)
    assert first.fitted is before


def test_the_jacobian_is_that_of_the_law():
    laws, unique = languages(3, seed=5)
    table = language_pilots(laws, unique, 20, 0.0)
    sized = table_of(
        table.sources,
        table.proportions,
        table.tokens,
        table.losses,
        unique=table.unique,
        parameters=np.geomspace(1e7, 1e9, 20),
    )
    for each in (False, True):
        rows, form = form_of(sized, 1, saturation=None, each_saturation=each, penalty="all")
        x = form.starts(rows)[3] + 0.1
        assert len(x) == len(form.names)
        assert form.numbers(form.law(x)) == pytest.approx(x)
        exact = form.jacobian(x, rows)

        def at(x, rows=rows, form=form):
            return form.law(x).losses(rows.proportions, rows.tokens, rows.parameters, rows.unique)

        steps = 1e-6 * np.eye(len(x))
        differences = np.stack([(at(x + step) - at(x - step)) / 2e-6 for step in steps], axis=1)
        assert exact == pytest.approx(differences, rel=1e-4, abs=1e-6)


def test_rows_may_be_weighted_by_repeats_as_the_paper_does():
    """A row that is wrong where little is repeated hardly counts then; evenly weighted it does."""
    truth = law_of_target(*SETS[0])
    runs = pilots(truth)
    wrong = runs.losses.copy()
    wrong[runs.repeats[:, 0] < 2] *= 1.02
    spoilt = replace(runs, losses=wrong)
    apart = [abs(MixtureLaw(by_repeats=way).fit(spoilt).fitted.laws[0].saturation[0] / 12 - 1) for way in (False, True)]
    assert apart[1] < apart[0]


def test_a_saturation_that_is_given_is_not_fitted():
    runs = pilots(law_of_target(*SETS[0]))
    assert MixtureLaw(saturation=15.39).fit(runs).fitted.laws[0].saturation.tolist() == [15.39, 15.39]


def unrepeated(num_runs=20):
    laws, _ = languages(2, seed=3)
    random = np.random.default_rng(0)
    proportions, tokens = random.dirichlet(np.ones(2), num_runs), random.choice([1e9, 4e9, 16e9], num_runs)
    nothing = np.full(num_runs, math.nan)
    fresh = np.full((num_runs, 2), np.inf)
    losses = np.stack([law.losses(proportions, tokens, nothing, fresh) for law in laws], axis=1)
    return table_of(("s0", "s1"), proportions, tokens, losses)


def test_runs_without_repeats_are_refused_unless_the_saturation_is_told():
    runs = unrepeated()
    with pytest.raises(FitError, match=r"'s0': no source was read more than once .* 20 runs, so R\* is not determined"):
        MixtureLaw().fit(runs)
    below = replace(runs, unique=np.full((20, 2), 1e12))  # sizes are told, and all repeats are below 1
    with pytest.raises(FitError, match=r"fix it \(saturation=15.39"):
        MixtureLaw().fit(below)
    planner = MixtureLaw(saturation=15.39).fit(runs)
    assert planner.predict(runs.proportions, runs.tokens) == pytest.approx(runs.losses, rel=1e-4)
    shares = planner.allocate(16e9, np.array([1e9, 1e9]), np.full(2, np.inf))
    assert shares.sum() == pytest.approx(1)


def test_too_few_runs_say_how_many_are_missing():
    runs = pilots(law_of_target(*SETS[0])).rows([3, 7, 20, 30])
    with pytest.raises(
        FitError, match=r"has 6 unknowns \(E, A, alpha, tau of 'en', gamma of 'hi', R\*\), but 4 runs .* 2 more"
    ):
        MixtureLaw().fit(runs)


def test_runs_that_leave_unknowns_free_are_refused():
    runs = pilots(law_of_target(*SETS[0]))
    same = runs.rows([5] * 20)
    with pytest.raises(FitError, match="leave 5 of 6 unknowns undetermined, among E, A"):
        MixtureLaw().fit(same)
    laws, unique = languages(3, seed=2)
    table = language_pilots(laws, unique, 40, 0.01)
    shares = table.proportions.copy()
    shares[:, 2], shares[:, 1] = 0, 1 - shares[:, 0]
    with pytest.raises(FitError, match="read anything of s2, so what it is worth is not determined"):
        MixtureLaw().fit(replace(table, proportions=shares))
    together = table.proportions.copy()
    together[:, 1] = together[:, 2] = together[:, 1:].sum(axis=1) / 2
    bound = replace(table, proportions=together, unique=np.repeat(table.unique[:, :1], 3, axis=1))
    with pytest.raises(FitError, match=r"undetermined, among .*tau of 's2'"):
        MixtureLaw().fit(bound)


def test_no_convergence_is_no_answer(monkeypatch):
    """Fits that are cut off after 2 evaluations are an error, not a law."""
    from mixstream.methods.mixture_law import fit as repetition_fit
    from mixstream.methods.planning.fitting import fit_from

    def cut_off(*args, **options):
        return fit_from(*args, **options, max_evaluations=2)

    monkeypatch.setattr(repetition_fit, "fit_from", cut_off)
    with pytest.raises(FitError, match=r"the repetition law of 'hi': no fit converged, from 10 starts of 2"):
        MixtureLaw().fit(pilots(law_of_target(*SETS[0]), 0.01))


def test_an_unknown_at_the_end_of_its_box_is_told():
    """Repeats that lose nothing have no R*: the fit ends at the greatest, and says so."""
    found = MixtureLaw().fit(pilots(law_of_target(2, 8, 0.3, 20, 1e6, 0.05))).fitted
    assert "'hi': R* = 100 is an end of what is allowed; the runs hardly determine it" in found.notes


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"saturation": 0.0}, "saturation=0.0; expected repeats above 0"),
        ({"saturation": -3.0}, "saturation=-3.0; expected repeats above 0"),
        ({"delta": 0.0}, "delta=0.0 of Huber's loss"),
        ({"penalty": "some"}, "penalty='some'; expected own, all or none"),
    ],
)
def test_options_that_are_none_are_refused(options, match):
    with pytest.raises(FitError, match=match):
        MixtureLaw(**options)


def test_tables_of_two_or_half_known_sizes_are_refused():
    runs = pilots(law_of_target(*SETS[0]))
    half = np.where(np.arange(len(runs)) % 2, 1e8, math.nan)
    with pytest.raises(RunTableError, match="parameters are told of 18 of 36 runs; tell those of all, or of none"):
        MixtureLaw().fit(replace(runs, parameters=half))
    two = np.where(np.arange(len(runs)) % 2, 1e8, 2e8)
    with pytest.raises(FitError, match=r"repetition law: runs of 2 model sizes, 100,000,000 and 200,000,000, cannot"):
        MixtureLaw().fit(replace(runs, parameters=two))
    near = np.where(np.arange(len(runs)) % 2, 1e8, 1.001e8)  # one size, as of models with another vocabulary
    assert not MixtureLaw().fit(replace(runs, parameters=near)).fitted.laws[0].any_size


def test_targets_that_cannot_be_are_refused():
    runs = pilots(law_of_target(*SETS[0]))
    with pytest.raises(FitError, match="no run has a loss of 'hi'"):
        MixtureLaw().fit(replace(runs, losses=np.full_like(runs.losses, math.nan)))
    with pytest.raises(RunTableError, match="target 'en' is not in the table of runs"):
        MixtureLaw(targets={"en": 1.0}).fit(runs)
    laws, unique = languages(2, seed=1)
    table = language_pilots(laws, unique, 30, 0.0)
    other = replace(table, targets=("benchmark", "s1"))
    with pytest.raises(RunTableError, match="'benchmark' is no source of the table, and not exactly one source"):
        MixtureLaw().fit(other)
    assert MixtureLaw(penalty="all").fit(other).fitted.laws[0].penalty[0] == 0


def test_runs_without_a_loss_are_left_out():
    runs = pilots(law_of_target(*SETS[0]))
    some = runs.losses.copy()
    some[::5] = math.nan
    assert MixtureLaw().fit(replace(runs, losses=some)).fitted.error[0] < 1e-6


def test_what_has_not_been_fitted_knows_nothing():
    with pytest.raises(FitError, match="has not been fitted; call fit"):
        MixtureLaw().predict(np.array([[0.5, 0.5]]), 1e9)
    with pytest.raises(FitError, match="has not been fitted"):
        MixtureLaw().allocate(1e9, np.ones(2), FREE)


def test_what_cannot_be_allocated_is_refused():
    planner = planned_by([law_of_target(*SETS[0])])
    sizes = np.array([1e8, 1e9])
    with pytest.raises(FloorError, match=r"floor=0.6 for 2 streams adds up to 1.2"):
        planner.allocate(1e9, sizes, FREE, floor=0.6)
    with pytest.raises(FloorError, match="the repeat budget of 's0' allows it 0.1"):
        planner.allocate(1e9, sizes, np.array([1.0, np.inf]), floor=0.2)
    with pytest.raises(BudgetError, match=r"needs 10,000,000,000 tokens, .* supply 2,200,000,000"):
        planner.allocate(1e10, sizes, np.full(2, 2.0))
    with pytest.raises(RunTableError, match="sizes: 's0' has 0, expected a number above 0"):
        planner.allocate(1e9, np.array([0.0, 1e9]), FREE)
    with pytest.raises(RunTableError, match="3 sizes; the law was fitted to 2 sources"):
        planner.allocate(1e9, np.ones(3), np.ones(3))
    for tokens in (0.0, -1.0, math.nan):
        with pytest.raises(RunTableError, match="expected a finite number above 0"):
            planner.allocate(tokens, sizes, FREE)


def test_what_cannot_be_predicted_is_refused():
    planner = planned_by([law_of_target(*SETS[0])])
    even = np.array([[0.5, 0.5]])
    for tokens in (0.0, -1e9, math.nan, math.inf):
        with pytest.raises(RunTableError, match=r"tokens: found .*, expected a finite number above 0"):
            planner.predict(even, tokens)
    with pytest.raises(RunTableError, match="unique tokens: found 0, expected numbers above 0"):
        planner.predict(even, 1e9, unique=np.array([0.0, 1e9]))
    with pytest.raises(RunTableError, match=r"mixtures are of shape \(1, 3\), expected \(mixtures, 2 sources\)"):
        planner.predict(np.full((1, 3), 1 / 3), 1e9)
    for bad in ([1.0, 1.0], [-0.5, 1.5], [math.nan, 1.0]):
        with pytest.raises(RunTableError, match="expected numbers of at least 0 with sum 1"):
            planner.predict(np.array([bad]), 1e9)
