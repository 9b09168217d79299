"""Held-out errors of planners: each mixture is predicted by a fit that has not seen it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from mixstream.errors import FitError
from mixstream.methods.planning.designs import climb_design, monolingual_design
from mixstream.methods.planning.heldout import held_out, twins
from mixstream.methods.planning.table import RunTable, table_of

NAMES = ("ca", "en")


@dataclass(frozen=True, eq=False)
class Nearest:
    """Predicts the losses of the nearest run that it has seen."""

    seen: RunTable | None = None
    name: str = "nearest"

    def fit(self, runs):
        if len(runs) < 8:
            raise FitError("too few runs")
        return replace(self, seen=runs)

    def predict(self, proportions, tokens, *, parameters=np.nan, unique=None):
        assert self.seen is not None
        far = np.abs(self.seen.proportions[None] - proportions[:, None]).sum(axis=2)
        far = far + 10 * np.abs(np.log(self.seen.tokens[None] / np.asarray(tokens)[:, None]))
        return self.seen.losses[far.argmin(axis=1)]


def table() -> RunTable:
    mixed, alone = climb_design(NAMES, (100, 200)), monolingual_design(NAMES, (50, 100, 200))
    shares, tokens = np.vstack([mixed.proportions, alone.proportions]), np.concatenate([mixed.tokens, alone.tokens])
    losses = 2 + 1 / (0.1 + shares) / np.log(tokens)[:, None]
    losses[0, 1] = np.nan
    return table_of(NAMES, shares, tokens.astype(float), losses, runs=[*mixed.runs, *alone.runs])


def test_each_mixture_is_predicted_once_by_what_did_not_see_it():
    runs = table()
    found = held_out(Nearest(), runs, 12)  # each alone
    assert found.runs == runs.runs[:12]
    for number in range(12):
        others = runs.rows(np.arange(len(runs)) != number)
        expected = Nearest().fit(others).predict(runs.proportions[[number]], runs.tokens[[number]])[0]
        assert found.errors[number] == pytest.approx(expected / runs.losses[number] - 1, nan_ok=True)
        same = [i for i in range(12) if i != number and runs.tokens[i] == runs.tokens[number]]
        mean = np.exp(np.nanmean(np.log(runs.losses[same]), axis=0))
        assert found.of_means[number] == pytest.approx(mean / runs.losses[number] - 1, nan_ok=True)
    assert (np.abs(found.errors[np.isfinite(found.errors)]) > 0).all()


def test_a_loss_that_no_other_mixture_of_the_budget_has_is_compared_with_none():
    runs = table()
    losses = runs.losses.copy()
    losses[:12][runs.tokens[:12] == runs.tokens[3], 1] = np.nan
    losses[3, 1] = 2.0
    found = held_out(Nearest(), replace(runs, losses=losses), 12)
    assert np.isnan(found.of_means[3, 1])
    assert np.isfinite(found.of_means[3, 0])


def test_folds_are_the_same_again_and_cannot_be_more_than_mixtures():
    runs = table()
    one, other = held_out(Nearest(), runs, 3, seed=1), held_out(Nearest(), runs, 3, seed=1)
    assert np.array_equal(one.errors, other.errors, equal_nan=True)
    for folds in (1, 13):
        with pytest.raises(FitError, match=f"{folds} folds of 12 mixtures; expected from 2"):
            held_out(Nearest(), runs, folds)
    with pytest.raises(FitError, match=r"without .* \(6 runs left out\): too few runs"):
        held_out(Nearest(), runs.rows(np.arange(13)), 2)


def test_twins_by_another_seed_are_left_out_together():
    """They would tell its loss: the nearest run that was seen is never the run's own twin."""
    runs = table()
    both = runs.rows([*range(len(runs)), *range(len(runs))])
    assert twins(both).tolist() == [*range(len(runs)), *range(len(runs))]
    found = held_out(Nearest(), both, 12)
    assert len(found.runs) == 24
    np.testing.assert_array_equal(found.errors[:12], found.errors[12:])
    assert (np.abs(found.errors[np.isfinite(found.errors)]) > 0).all()
    with pytest.raises(FitError, match="13 folds of 12 mixtures"):
        held_out(Nearest(), both, 13)


def test_a_mixture_at_another_budget_or_model_size_is_no_twin():
    shares = np.array([[0.4, 0.6], [0.4, 0.6], [0.4002, 0.5998], [0.4, 0.6]])
    runs = table_of(NAMES, shares, [1e5, 2e5, 1e5, 1e5], np.ones((4, 2)), parameters=np.array([1e6, 1e6, 1e6, 2e6]))
    assert twins(runs).tolist() == [0, 1, 0, 3]
