"""Pre-training and specialising: the form, its fit, and the best split of a compute budget."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixstream.errors import FitError
from mixstream.methods.splitting import SplitLaw, fit_split

LAW = SplitLaw(1.2, 0.4, 0.3, 0.8, 0.3, 0.6, 0.4, 0.05, 0.6, 0.0, 1e8, 1e10, 1e8)


def runs(sizes=(1e8,)):
    """Return N, D and D' of 25 runs of each size."""
    rows = [(n, d, x) for n in sizes for d in np.geomspace(2e9, 5e10, 5) for x in (0, 1e7, 1e8, 1e9, 5e9)]
    return np.array(rows).T


def test_the_form():
    law = replace(LAW, before=3e9)
    general, special = (8e9 + 3e9) / 1e10, 4e8 / 1e8 + 0.05 * (8e9 / 1e10) ** 0.6
    expected = 1.2 + 0.4 * (3e8 / 1e8) ** -0.3 + 0.8 * general**-0.3 + 0.6 * special**-0.4
    assert float(law.predict(3e8, 8e9, 4e8)) == pytest.approx(expected, rel=1e-12)


@given(st.floats(17, 22), st.floats(7, 10), st.integers(1, 20))
def test_no_split_is_better_and_the_budget_is_spent(log_flops, log_size, domains):
    size, flops = 10**log_size, 10**log_flops
    split = LAW.best_split(flops, size, domains=domains)
    assert 6 * size * (split.tokens + domains * split.domain_tokens) == pytest.approx(flops, rel=1e-9)
    total = flops / 6 / size
    assert split.share == pytest.approx(split.tokens / total)
    shares = np.linspace(0.001, 0.9995, 1500)
    others = LAW.predict(size, total * shares, total * (1 - shares) / domains)
    assert split.loss <= others.min() + 1e-9
    assert split.loss == pytest.approx(float(LAW.predict(size, split.tokens, split.domain_tokens)))


def test_a_domain_of_few_tokens_holds_the_split():
    free, held = LAW.best_split(6e19, 1e8), LAW.best_split(6e19, 1e8, most_domain=1e9)
    assert free.domain_tokens > 1e9
    assert held.domain_tokens == pytest.approx(1e9, rel=1e-6)
    assert held.loss > free.loss


def test_specialising_that_is_worth_nothing_gets_nothing():
    generous = replace(LAW, domain_scale=1e-9)
    assert generous.best_split(6e19, 1e8).domain_tokens == 0


@pytest.mark.parametrize("sizes", [(1e8,), (5e7, 1e8, 4e8)])
def test_a_planted_law_is_found_again(sizes):
    """Exactly without noise; with 1 % its split costs at most 0.1 % of the least loss, at 20 times the compute."""
    numbers = runs(sizes)
    losses = LAW.predict(*numbers)
    assert fit_split(*numbers, losses).predict(*numbers) == pytest.approx(losses, rel=1e-6)
    found = fit_split(*numbers, losses * np.exp(0.01 * np.random.default_rng(0).normal(size=len(losses))))
    for flops in (6e18, 6e20):
        best, split = LAW.best_split(flops, 1e8), found.best_split(flops, 1e8)
        assert float(LAW.predict(1e8, split.tokens, split.domain_tokens)) <= best.loss * 1.001


def test_one_size_has_no_term_of_size():
    law = fit_split(*runs(), LAW.predict(*runs()))
    assert law.model_scale == 0
    assert law.predict(1e6, 1e9, 1e8) == law.predict(1e12, 1e9, 1e8)


def test_runs_that_determine_no_law_are_refused():
    model, tokens, domain = runs()
    losses = LAW.predict(model, tokens, domain)
    with pytest.raises(FitError, match="5 runs for the 7 unknowns .* 2 more are needed"):
        fit_split(1e8, tokens[::5], domain[:5], losses[:5])
    with pytest.raises(FitError, match="D has 1 different values over 25 runs; expected 3 or more"):
        fit_split(1e8, np.full(25, 1e9), domain, losses)
    with pytest.raises(FitError, match="D' has 1 different values"):
        fit_split(1e8, tokens, np.full(25, 1e9), losses)
    with pytest.raises(FitError, match="2 model sizes; expected 1, or 3 and more"):
        fit_split(*runs((1e8, 2e8)), LAW.predict(*runs((1e8, 2e8))))
    with pytest.raises(FitError, match="expected one finite number above 0 for every run"):
        fit_split(model, tokens, domain, -losses)
    with pytest.raises(FitError, match="tokens of pre-training from 0"):
        fit_split(model, np.where(tokens > 3e9, tokens, 0), domain, losses)


@pytest.mark.parametrize(
    ("numbers", "match"),
    [
        ((0.0, 1e9, 1e8), "parameters: found 0, expected a finite number above 0"),
        ((1e8, -1e9, 1e8), r"tokens of pre-training: found -1e\+09, expected a finite number of at least 0"),
        ((1e8, 1e9, math.inf), "tokens of the domain: found inf"),
        ((1e8, 0.0, 1e8), "0 tokens of pre-training, and the law knows of none before"),
    ],
)
def test_numbers_that_are_none_are_refused(numbers, match):
    with pytest.raises(FitError, match=match):
        LAW.predict(*numbers)


@pytest.mark.parametrize("options", [{"flops": 0.0}, {"parameters": -1.0}, {"domains": 0}, {"most_domain": 0.0}])
def test_budgets_that_are_none_are_refused(options):
    with pytest.raises(FitError, match="expected finite numbers above 0"):
        LAW.best_split(**{"flops": 1e19, "parameters": 1e8} | options)
