from __future__ import annotations

import dataclasses
import subprocess
import sys
from importlib import import_module

import numpy as np
import pytest

from mixstream.errors import FitError, WeightsError
from mixstream.methods.planning.answer import has_law
from mixstream.methods.planning.registry import LEARNING, NAMES, RULES, learning_planner, method_name, rule


@pytest.mark.parametrize("name", LEARNING)
def test_a_planner_is_what_its_name_says_and_has_the_options_that_are_told(name):
    planner = learning_planner(name)
    assert planner.name == name == method_name(name)
    assert has_law(planner)
    fields = {field.name for field in dataclasses.fields(planner)}
    assert set(LEARNING[name].options) <= fields
    with pytest.raises(FitError, match="fit"):
        planner.allocate(10.0, np.full(2, 100.0), np.ones(2))


@pytest.mark.parametrize(
    ("spec", "name"),
    [("natural", "natural"), ("uniform", "uniform"), ("temperature:0.3", "temperature"), ("unimax:4", "unimax")],
)
def test_a_rule_is_what_its_name_says_and_needs_no_runs(spec, name):
    made = rule(spec, ("a", "b"))
    assert made.name == name == method_name(spec)
    assert not has_law(made)
    assert made.allocate(150.0, np.array([100.0, 300]), np.full(2, 4.0)).sum() == pytest.approx(1)


def test_options_reach_the_planner():
    assert learning_planner("climb", {"objective": "sum_loss", "targets": {"eu": 2.0}}).objective == "sum_loss"
    assert learning_planner("mixing-law", {"kl": 0.5}).kl == 0.5


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: method_name("clim"), WeightsError, "method 'clim' is none of natural, uniform, temperature:EXPONENT.*; did you mean 'climb'"),
        (lambda: method_name("climb:4"), WeightsError, "method 'climb:4' is none of"),
        (lambda: learning_planner("natural"), WeightsError, "method 'natural' is none of those that learn from runs: climb"),
        (lambda: learning_planner("climb", {"kl": 1}), WeightsError, r"climb has no option 'kl' \(it has targets, objective"),
        (lambda: learning_planner("climb", {"objectiv": 1}), WeightsError, "no option 'objectiv'; did you mean 'objective'"),
        (lambda: learning_planner("climb", {"objective": "sum_los"}), FitError, "objective 'sum_los' of CLIMB"),
        (lambda: rule("unimax:x", ("a",)), WeightsError, "'unimax:x'; expected its name, a colon and a number"),
    ],
)  # fmt: skip
def test_what_there_is_not_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_names_are_each_of_one_method():
    assert len(set(NAMES)) == len(NAMES) == len(RULES) + len(LEARNING)
    for method in LEARNING.values():
        assert hasattr(import_module(method.module), method.kind)


def test_knowing_the_names_loads_none_of_them():
    code = (
        "import sys\n"
        "from mixstream.methods.planning.registry import method_name\n"
        "assert method_name('climb') == 'climb'\n"
        "assert not [m for m in sys.modules if m.startswith(('scipy', 'lightgbm', 'mixstream.methods.climb'))]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)
