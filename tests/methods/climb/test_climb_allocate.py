"""Both steps give the reference's figures, and what is found is the best there is."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from climb_pilots import anywhere, of_form, planted
from hypothesis import given, settings
from hypothesis import strategies as st

from mixstream.errors import FitError
from mixstream.methods.climb.allocate import OBJECTIVES, allocate, direction, raise_level, two_step
from mixstream.methods.planning.allocating import Region

EVEN = np.ones(4)
DIRECTIONS = {
    25.0: (0.234187, 0.208879, 0.289433, 0.267500),
    100.0: (0.235152, 0.205301, 0.293824, 0.265723),
    1000.0: (0.236688, 0.199430, 0.301169, 0.262713),
}
# form, D: s, r of the two steps, their sum of losses; r of the least sum, and that sum; that of uniform
SOLUTIONS = {
    ("F1", 25.0): (
        2.104973035266844,
        (0.164423, 0.171484, 0.314690, 0.349403),
        69.45846,
        (0.195436, 0.224486, 0.281093, 0.298984),
        69.27439,
        69.43138,
    ),
    ("F1", 100.0): (
        1.7349159024861251,
        (0.189766, 0.172322, 0.314533, 0.323379),
        51.54149,
        (0.199881, 0.214014, 0.290499, 0.295607),
        51.47925,
        51.61568,
    ),
    ("F1", 1000.0): (
        1.620054164636767,
        (0.200413, 0.164940, 0.323602, 0.311045),
        30.65692,
        (0.204085, 0.205194, 0.300089, 0.290632),
        30.62865,
        30.71220,
    ),
    ("F2", 25.0): (
        1.2806828422197206,
        (0.221484, 0.202964, 0.291885, 0.283667),
        78.90582,
        (0.224962, 0.215953, 0.284970, 0.274116),
        78.89052,
        79.05482,
    ),
    ("F2", 100.0): (
        1.1847334538891023,
        (0.226134, 0.200190, 0.296572, 0.277104),
        56.62533,
        (0.228283, 0.209808, 0.290791, 0.271118),
        56.61953,
        56.75534,
    ),
    ("F2", 1000.0): (
        1.15554122634954,
        (0.229094, 0.194134, 0.304764, 0.272009),
        33.03192,
        (0.230634, 0.203076, 0.298835, 0.267455),
        33.02932,
        33.11870,
    ),
}


@pytest.mark.parametrize("tokens", DIRECTIONS)
def test_the_direction_is_the_references(tokens):
    assert direction(of_form("F1"), tokens, EVEN) == pytest.approx(DIRECTIONS[tokens], abs=1e-6)


@pytest.mark.parametrize(("form", "tokens"), SOLUTIONS)
def test_both_steps_and_the_least_sum_are_the_references(form, tokens):
    level, shares, total, joint, least, uniform = SOLUTIONS[form, tokens]
    law, region = of_form(form), anywhere(4)

    def sum_at(proportions):
        return float(law.losses(np.array([proportions]), np.array([tokens])).sum())

    found = two_step(law, tokens, region, EVEN)
    assert -found.value == pytest.approx(level, abs=1e-8)
    assert found.proportions == pytest.approx(shares, abs=1e-6)
    assert sum_at(found.proportions) == pytest.approx(total, abs=1e-5)
    best = allocate(law, tokens, region, "sum_loss", EVEN)
    assert best.proportions == pytest.approx(joint, abs=1e-5)
    assert best.value == pytest.approx(least, abs=1e-5)
    assert sum_at(np.full(4, 0.25)) == pytest.approx(uniform, abs=1e-5)


@given(st.integers(0, 1000), st.integers(2, 8), st.floats(1e8, 1e12), st.data())
def test_the_direction_equalises_marginal_benefits(seed, count, tokens, data):
    law = planted("F1", count, seed)
    utilities = np.array(data.draw(st.lists(st.floats(0.1, 10), min_size=count, max_size=count)))
    shares = direction(law, tokens, utilities)
    scaled = tokens / law.reference_tokens
    benefit = utilities * law.exponent * law.scale * scaled**-law.exponent * shares ** -(law.exponent + 1)
    assert shares.sum() == pytest.approx(1, abs=1e-12)
    assert benefit == pytest.approx(np.full(count, benefit[0]), rel=1e-9)


def test_a_language_without_utility_has_no_part_in_the_direction():
    utilities = np.array([1.0, 0.0, 2.0, 1.0])
    assert direction(of_form("F2"), 100.0, utilities)[1] == 0
    shares = two_step(of_form("F2"), 100.0, anywhere(4), utilities).proportions
    assert shares[1] < two_step(of_form("F2"), 100.0, anywhere(4), EVEN).proportions[1] / 2


def grid(count, steps):
    for cuts in itertools.combinations(range(steps + count - 1), count - 1):
        yield np.diff([-1, *cuts, steps + count - 1]) - 1


def level_of(law, objective, shares, tokens):
    """What an objective lowers, as its definition says it."""
    if objective == "two_step":
        ratio = law.ratios(shares[None], np.array([tokens]))[0]
        return -float((ratio / direction(law, tokens, np.ones(len(shares)))).min())
    losses = law.losses(shares[None], np.array([tokens]))[0]
    return float(losses.sum() if objective == "sum_loss" else (losses - law.alone(tokens)).max())


@settings(max_examples=20)
@given(st.integers(0, 1000), st.sampled_from(["F1", "F2", "F3"]), st.sampled_from(OBJECTIVES), st.booleans())
def test_no_mixture_of_a_grid_is_better(seed, form, objective, capped):
    law, tokens = planted(form, 3, seed), 5e9
    region = Region(np.full(3, 0.05), np.array([0.25, 1.0, 0.6]) if capped else np.ones(3))
    found = allocate(law, tokens, region, objective, np.ones(3))
    assert found.proportions.sum() == pytest.approx(1, abs=1e-9)
    assert (found.proportions >= region.least - 1e-12).all()
    assert (found.proportions <= region.most + 1e-12).all()
    assert found.value == pytest.approx(level_of(law, objective, found.proportions, tokens))
    tried = [one / 40 for one in grid(3, 40)]
    inside = [one for one in tried if (one >= region.least).all() and (one <= region.most).all()]
    assert found.value <= min(level_of(law, objective, one, tokens) for one in inside) + 1e-9


def test_the_two_steps_can_lose_to_uniform_and_the_sum_cannot():
    """F1 at D=25, PAPERS.md 3.5."""
    law, tokens = of_form("F1"), np.array([25.0])
    sums = {
        name: law.losses(allocate(law, 25.0, anywhere(4), name, EVEN).proportions[None], tokens).sum()
        for name in OBJECTIVES
    }
    uniform = law.losses(np.full((1, 4), 0.25), tokens).sum()
    assert sums["two_step"] > uniform > sums["sum_loss"]


def test_a_solver_that_does_not_converge_is_an_error():
    def rough(shares):  # slopes that are not those of the values
        return np.sin(1e5 * shares), np.eye(3)

    with pytest.raises(FitError, match="rough: no solution was found from 2 starts .*another objective"):
        raise_level(anywhere(3), rough, np.ones(3), anywhere(3).starts(2, 0), of="rough")


def test_sixty_languages_are_solved():
    law, tokens = planted("F2", 60, 1), 1e10
    found = allocate(law, tokens, anywhere(60), "sum_loss", np.ones(60))
    assert found.value < law.losses(np.full((1, 60), 1 / 60), np.array([tokens])).sum()
