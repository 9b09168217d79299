"""RegMix's real runs: the exponential law, fitted to 1M models, ranks 1B models."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import REGMIX, needs_regmix
from scipy.stats import spearmanr

from mixstream.methods.mixing_law import LogLinear, MixingLaw

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import regmix


def _rank(expected, runs, target):
    number = runs.target(target)
    return spearmanr(expected[:, number], runs.losses[:, number])[0]


@needs_regmix
def test_the_exponential_law_of_512_small_runs_ranks_64_large_ones():
    """Elsewhere, by another optimiser, 0.9857 on Pile-CC; linear regression 0.8766."""
    small, large = regmix.read_runs(REGMIX, "train", "1m"), regmix.read_runs(REGMIX, "test", "1B")
    assert (len(small), len(large), len(small.sources), len(small.targets)) == (512, 64, 17, 13)
    expected = MixingLaw().fit(small).predict(large.proportions, large.tokens)
    assert _rank(expected, large, "pile_cc") >= 0.985
    assert np.mean([_rank(expected, large, target) for target in large.targets]) > 0.92
    assert _rank(regmix.linear(small, large.proportions), large, "pile_cc") == pytest.approx(0.8766, abs=5e-3)
    line = LogLinear().fit(small).predict(large.proportions, large.tokens)
    assert _rank(line, large, "pile_cc") < _rank(expected, large, "pile_cc")


@needs_regmix
def test_the_benchmark_tells_every_domain_and_regression(monkeypatch, capsys):
    pytest.importorskip("lightgbm")
    monkeypatch.setattr(sys, "argv", ["regmix.py", str(REGMIX)])
    regmix.main()
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(told["spearman_1B"]) == {"mixing-law", "log-linear", "regmix", "linear"}
    assert all(len(ranks) == 13 for ranks in told["spearman_1B"].values())
    assert told["spearman_1B"]["regmix"]["pile_cc"] > 0.9
    assert told["median_error_1m"]["mixing-law"]["pile_cc"] < 0.02
