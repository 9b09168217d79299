from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
from bowls import Bowl, bowl_table, random_table

from mixstream.errors import FitError
from mixstream.methods.planning.bootstrap import bootstrap, interval, predict_runs, relative_errors

SIZES, ANY = np.full(3, 1e9), np.full(3, np.inf)
EVEN = np.full((1, 3), 1 / 3)


def run(planner, runs, **options):
    fitted = planner.fit(runs)
    return bootstrap(fitted, runs, lambda p: p.allocate(1e9, SIZES, ANY), lambda p: p.predict(EVEN, 1e9), **options)


@pytest.mark.parametrize("resample", ["runs", "residuals"])
def test_of_runs_without_noise_all_refits_agree(resample):
    found = run(Bowl(), bowl_table(), resample=resample)
    assert found.proportions.shape == (20, 3)
    assert found.losses.shape == (20, 1, 3)
    np.testing.assert_allclose(found.proportions, [[0.2, 0.3, 0.5]] * 20, atol=1e-3)
    assert np.ptp(found.losses, axis=0).max() < 1e-9
    assert found.failures == ()


@pytest.mark.parametrize("resample", ["runs", "residuals"])
def test_the_interval_holds_the_truth_about_as_often_as_it_says(resample):
    """90 % intervals of 60 noisy tables: the truth lies within in most of them, and they are not all of it."""
    inside, widths = [], []
    for seed in range(60):
        table = bowl_table(noise=0.01, num_runs=30, seed=seed)
        options = {"num": 40, "seed": seed, "resample": resample}
        found = bootstrap(Bowl().fit(table), table, lambda p: p.best, lambda p: p.predict(EVEN, 1e9), **options)
        low, high = np.moveaxis(interval(found.losses[:, 0]), -1, 0)
        truth = Bowl().fit(bowl_table()).predict(EVEN, 1e9)[0]
        inside.append((low <= truth) & (truth <= high))
        widths.append(high - low)
    assert 0.75 <= np.mean(inside) <= 0.97
    assert np.mean(widths) < 0.05


def test_more_noise_widens_it():
    narrow, wide = (run(Bowl(), bowl_table(noise=noise)) for noise in (0.001, 0.01))
    assert (11 * np.ptp(narrow.losses, axis=0) > np.ptp(wide.losses, axis=0)).all()
    assert (2 * np.ptp(narrow.losses, axis=0) < np.ptp(wide.losses, axis=0)).all()


def test_it_depends_on_the_seed_alone_and_a_longer_one_begins_as_the_shorter():
    table = bowl_table(noise=0.01)
    short, same, other, longer = (run(Bowl(), table, num=n, seed=s) for n, s in ((5, 1), (5, 1), (5, 2), (9, 1)))
    np.testing.assert_array_equal(short.losses, same.losses)
    np.testing.assert_array_equal(short.losses, longer.losses[:5])
    assert not np.array_equal(short.losses, other.losses)


def test_intervals_are_quantiles():
    values = np.arange(101.0)[:, None] * [1, 2]
    np.testing.assert_allclose(interval(values), [[5, 95], [10, 190]])
    np.testing.assert_allclose(interval(values, 0.5), [[25, 75], [50, 150]])


def test_a_run_is_drawn_with_all_its_losses():
    """Losses of run n are n and 10 n: a refit that saw another pairing would find it."""
    seen = []

    @dataclass(frozen=True)
    class Looker(Bowl):
        def fit(self, runs):
            seen.append(runs)
            return replace(self, best=np.full(3, 1 / 3), floors=np.ones(3))

    table = random_table(9, targets=("one", "ten", "same"))
    table = replace(table, losses=np.outer(np.arange(1, 10), [1.0, 10, 1]))
    run(Looker(), table, num=6)
    for drawn in seen[1:]:
        assert len(drawn) == 9
        np.testing.assert_array_equal(drawn.losses[:, 1], 10 * drawn.losses[:, 0])
        np.testing.assert_allclose(drawn.proportions, table.proportions[drawn.losses[:, 0].astype(int) - 1], rtol=1e-14)
    assert len({tuple(drawn.losses[:, 0]) for drawn in seen[1:]}) == 6


def test_held_out_errors_are_of_runs_that_the_refit_has_not_seen():
    """A planner that knows by heart what it saw errs on nothing else."""

    @dataclass(frozen=True, eq=False)
    class Heart(Bowl):
        known: dict | None = None

        def fit(self, runs):
            return replace(self, known={tuple(p): loss for p, loss in zip(runs.proportions, runs.losses, strict=True)})

        def predict(self, proportions, tokens, *, parameters=math.nan, unique=None):
            return np.array([self.known.get(tuple(p), np.full(3, 1e6)) for p in proportions])

        def allocate(self, *args, **options):
            return EVEN[0]

    table = random_table(10)
    found = run(Heart(), table)
    assert (relative_errors(Heart().fit(table), table) == 0).all()
    assert (found.errors > 1000).all()
    assert 50 < len(found.errors) / 3 < 110  # a run is left out of a draw with probability 0.9^10 = 0.35
    assert found.heldout_error > 1000
    assert math.isnan(run(Bowl(), bowl_table(), resample="residuals").heldout_error)


def test_what_a_law_misses_is_seen_on_what_is_held_out():
    table = bowl_table(noise=0.02, num_runs=40)
    found = run(Bowl(), table)
    assert 0.008 < found.heldout_error < 0.02
    seen = relative_errors(Bowl().fit(table), table)
    assert np.sqrt((seen**2).mean()) < np.sqrt((found.errors**2).mean()) < 2 * np.sqrt((seen**2).mean())


def test_a_loss_that_is_missing_stays_so():
    table = bowl_table(noise=0.01)
    table.losses[3, 1] = math.nan
    seen = []

    @dataclass(frozen=True, eq=False)
    class Looker(Bowl):
        def fit(self, runs):
            seen.append(runs.losses)
            return self

    whole = Bowl().fit(bowl_table())
    run(Looker(best=whole.best, floors=whole.floors), table, num=8, resample="residuals")
    for losses in seen[1:]:
        assert np.argwhere(np.isnan(losses)).tolist() == [[3, 1]]
        assert np.abs(losses / predict_runs(whole, table) - 1)[~np.isnan(losses)].max() < 0.05


def test_refits_that_fail_are_told_and_too_many_are_an_error():
    table = bowl_table(noise=0.01, num_runs=6)
    different = [len(set(np.random.default_rng([0, number]).integers(0, 6, 6).tolist())) for number in range(20)]
    some = sum(count < 4 for count in different)
    many = sum(count < 5 for count in different)
    assert 0 < some <= 5 < many
    found = run(Bowl(fewest=4), table)
    assert len(found.failures) == some
    assert found.proportions.shape == (20 - some, 3)
    assert found.losses.shape == (20 - some, 1, 3)
    assert "fewer than 4 different mixtures" in found.failures[0]
    with pytest.raises(
        FitError,
        match=f"bootstrap: {many} of 20 refits failed, more than 25%.*the first: bowl: fewer.*resample residuals",
    ):
        run(Bowl(fewest=5), table)
    assert run(Bowl(fewest=5), table, resample="residuals").failures == ()


def test_a_refit_that_cannot_predict_what_is_left_out_has_failed_as_a_whole():
    @dataclass(frozen=True, eq=False)
    class Shy(Bowl):
        seen: int = 0

        def fit(self, runs):
            return replace(super().fit(runs), seen=len({tuple(row) for row in runs.proportions}))

        def predict(self, proportions, tokens, **options):
            if self.seen < 4 and len(proportions) > 1:
                raise FitError("shy")
            return super().predict(proportions, tokens, **options)

    found = run(Shy(), bowl_table(noise=0.01, num_runs=7))
    assert 0 < len(found.failures) <= 5
    assert len(found.losses) == len(found.proportions) == 20 - len(found.failures)


@pytest.mark.parametrize("options", [{"num": 1}, {"resample": "rows"}])
def test_a_bootstrap_that_cannot_be_is_refused(options):
    with pytest.raises(FitError, match="expected 2 or more, and one of runs, residuals"):
        run(Bowl(), bowl_table(), **options)
