"""Scores on 1, 2 and 4 processes: plain, under DDP and under FSDP2, whatever rows each of them has.

Two processes take turns on a core where there are few, so all of it is measured by one script, once.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY

HERE = Path(__file__).parent
RANKS = (1, 2, 4)
WAYS = (("even", "papers"), ("uneven", "papers"), ("empty", "papers"), ("uneven", "transfer"))
PARAMETERS = 20640


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What each process tells: {ranks: [of each rank]}."""
    out = tmp_path_factory.mktemp("ranks")
    paths = os.pathsep.join(map(str, (REPOSITORY, HERE, *filter(None, [os.environ.get("PYTHONPATH")]))))
    done = subprocess.run(
        [sys.executable, str(HERE / "scores_on_ranks.py"), str(out)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {ranks: [json.loads((out / f"{ranks}-{rank}.json").read_text()) for rank in range(ranks)] for ranks in RANKS}


def scores(told, ranks, key):
    """Return the scores, losses and norm that all ranks have in common."""
    own = [rank[key] for rank in told[ranks]]
    assert all(other == own[0] for other in own)
    return np.array(own[0])


def error_of(found, expected):
    """Return the greatest error of the scores, of the greatest of them; losses and norm are the same."""
    assert found[4:] == pytest.approx(expected[4:], rel=1e-5)
    return np.abs(found - expected)[:4].max() / np.abs(expected[:4]).max()


@pytest.mark.parametrize("name", ["fd", "jvp", "kbackward"])
def test_scores_are_the_same_on_any_number_of_ranks(told, name):
    """A model in float64: but for the order of sums, also where a rank has no row at all."""
    for sharing, targets in WAYS:
        expected = scores(told, 1, f"ddp {name} {sharing} {targets}")
        for ranks in RANKS:
            assert error_of(scores(told, ranks, f"ddp {name} {sharing} {targets}"), expected) < 1e-9


@pytest.mark.parametrize("name", ["fd", "jvp", "kbackward"])
def test_scores_in_float32_are_too(told, name):
    """But for its rounding, which central differences divide by their step."""
    exact = scores(told, 1, "ddp kbackward even papers")
    alone = scores(told, 1, f"float32 {name} uneven papers")
    for ranks in RANKS:
        found = scores(told, ranks, f"float32 {name} uneven papers")
        assert error_of(found, alone) < (1e-4 if name == "fd" else 1e-5)
        assert error_of(found, exact) < (1e-3 if name == "fd" else 1e-5)


@pytest.mark.parametrize(("ranks", "kind", "ways"), [(2, "one unit", WAYS[2:]), (2, "units", WAYS), (4, "units", WAYS)])
def test_fsdp_is_ddp(told, ranks, kind, ways):
    """The whole model as one unit of FSDP2, and each of its layers as one."""
    for sharing, targets in ways:
        expected = scores(told, ranks, f"ddp fd {sharing} {targets}")
        assert error_of(scores(told, ranks, f"{kind} fd {sharing} {targets}"), expected) < 1e-9


@pytest.mark.parametrize("ranks", [2, 4])
def test_fsdp_in_float32_is_ddp(told, ranks):
    """Whose gradients are to be divided by another factor here."""
    expected = scores(told, ranks, "float32 fd uneven papers")
    assert error_of(scores(told, ranks, "sharded float32 fd uneven papers"), expected) < 1e-4


def test_the_factor_on_fsdps_gradients_is_found(told):
    """gloo adds up float32 where it was to take the mean (torch 2.7); of float64 the mean is taken."""
    for ranks in (2, 4):
        for rank in told[ranks]:
            assert rank["units factor"] == 1 / ranks
            assert rank["sharded float32 factor"] in (1.0, 1 / ranks)


def test_parameters_are_in_shards(told):
    for ranks in (2, 4):
        assert sum(rank["units parameters"] for rank in told[ranks]) == PARAMETERS


def test_an_update_sends_one_gradient_and_three_numbers_a_source(told):
    """The rows of each source in A; G; and sums on both sides and rows of each source in B."""
    for ranks in RANKS:
        assert all(rank["sent"] == [4, PARAMETERS, 3 * 4] for rank in told[ranks])


@pytest.mark.parametrize(
    ("what", "match"),
    [
        ("missing", "sources number [2] have no row in the probe batch; make it larger"),
        ("jvp", "the model's parameters are sharded (FSDP), and jvp differentiates whole ones; use fd"),
        ("kbackward", "sharded (FSDP), and kbackward takes a gradient of whole ones for each source; use fd"),
        ("boastful", "the factor by which FSDP scales gradients over 4 ranks cannot be told"),
        ("partly", "FSDP2 shards the model, but not its parameters model.model.embed_tokens.weight"),
        ("old", "the model is sharded by FSDP1, expected FSDP2; set FSDP_VERSION=2 in the environment"),
    ],
)
def test_what_cannot_be_measured_is_refused_on_every_rank(told, what, match):
    assert all(match in rank[what] for rank in told[4])
