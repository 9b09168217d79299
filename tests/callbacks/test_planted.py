"""Scores and weights where who helps whom is known: sources with one table, with contradicting ones, and noise."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest
import torch
from conftest import REPOSITORY


@pytest.fixture(scope="module")
def planted():
    """The benchmark that shows the same at length."""
    spec = importlib.util.spec_from_file_location("planted", REPOSITORY / "benchmarks" / "planted.py")
    sys.modules["planted"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # of so small a model more threads make it slower, many times on a busy machine
    yield module
    torch.set_num_threads(threads)
    del sys.modules["planted"]


@pytest.fixture(scope="module")
def measured(planted):
    """A model that has learnt something, its true scores, and what each way measures with two sequences a source."""
    sources, state = planted.Planted(0), planted.composer_state(0)
    planted.train(sources, state, 40, 0.002)
    truth = planted.true_scores(sources, state, rows=192, pairs=16)
    return sources, state, truth, planted.estimates(sources, state, [2] * planted.K, draws=80)


@pytest.mark.parametrize("way", ["cross-fitted", "half split"])
def test_scores_of_independent_batches_are_unbiased(measured, way):
    _, _, truth, ways = measured
    assert np.abs(ways[way].from_truth(truth)).max() < 4


def test_scores_of_one_batch_are_too_high_by_the_gradients_noise(planted, measured):
    """By more than 4 standard errors for every source, by tr Cov / n; noise, which harms all, seems to help."""
    sources, state, truth, ways = measured
    same = ways["same batch"]
    assert same.from_truth(truth).min() > 4
    excess = (same.mean - truth.mean) * 2 / planted.noise_energy(sources, state, rows=80)
    assert excess.mean() == pytest.approx(1, abs=0.2)
    assert truth.mean[planted.NOISE] < 0 < same.mean[planted.NOISE]


def test_true_scores_are_in_the_order_of_what_is_shared(planted, measured):
    _, _, truth, _ = measured
    helping = truth.mean[planted.IS_HELPER]
    assert (np.diff(helping) < 0).all()
    assert helping.min() > truth.mean[planted.IS_INTERFERER].max()
    assert truth.mean[planted.NOISE] == truth.mean.min()


@pytest.mark.parametrize("seed", range(3))
def test_learnt_weights_raise_helpers_and_leave_noise_at_the_floor(planted, seed):
    sources, state = planted.Planted(seed), planted.composer_state(seed)
    learnt = planted.train(sources, state, 150, 0.001, planted.Learning())[-1]
    uniform = planted.composer_state(seed)
    planted.train(sources, uniform, 150, 0.001)
    assert learnt.sum() == pytest.approx(1)
    assert learnt[planted.NOISE] == pytest.approx(planted.FLOOR, abs=1e-3)
    assert learnt[planted.IS_HELPER].min() > learnt[planted.IS_INTERFERER].max()
    assert learnt[0] > 1.5 / planted.K
    gains = planted.heldout(sources, uniform) - planted.heldout(sources, state)
    assert (gains[planted.IS_HELPER] > 0.1).all()
