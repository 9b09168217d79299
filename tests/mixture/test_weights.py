from __future__ import annotations

import json

import numpy as np
import pytest

from mixstream.errors import FormatError, WeightsError
from mixstream.mixture.weights import natural, resolve_weights, temperature, uniform, unimax

SIZES = np.array([1, 5, 20, 100, 1000.0])
TOKENS = {"a": 1, "b": 5, "c": 20, "d": 100, "e": 1000}


def test_natural_and_uniform():
    assert natural(SIZES) == pytest.approx(SIZES / 1126)
    assert uniform(SIZES) == pytest.approx([0.2] * 5)


def test_temperature_fixture():
    """Computed apart from this code, for sizes 1, 5, 20, 100, 1000."""
    assert temperature(SIZES, 0.3) == pytest.approx([0.058818, 0.095325, 0.144485, 0.234160, 0.467212], abs=1e-6)
    assert temperature(SIZES, 0.7) == pytest.approx([0.006126, 0.018900, 0.049877, 0.153878, 0.771219], abs=1e-6)
    assert temperature(SIZES, 1) == pytest.approx(natural(SIZES))
    assert temperature(SIZES, 0) == pytest.approx(uniform(SIZES))


def test_unimax_fixture():
    """Budget 200, 4 repeats: n = 4, 20, 58.67, 58.67, 58.67."""
    assert unimax(SIZES, 4, 200) == pytest.approx([0.02, 0.1, 0.293333, 0.293333, 0.293333], abs=1e-6)


def test_specs_are_resolved(tmp_path):
    assert resolve_weights("temperature:0.3", TOKENS, 1) == pytest.approx(temperature(SIZES, 0.3))
    assert resolve_weights("unimax:4", TOKENS, 200) == pytest.approx(unimax(SIZES, 4, 200))
    given = {"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.4, "e": 0.0}
    assert resolve_weights(given, TOKENS, 1) == pytest.approx(list(given.values()))
    path = tmp_path / "weights.json"
    path.write_text(json.dumps({"weights": given}))
    assert resolve_weights(path, TOKENS, 1) == pytest.approx(list(given.values()))
    path.write_text(json.dumps(given))
    assert resolve_weights(str(path), TOKENS, 1) == pytest.approx(list(given.values()))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("unifrom", r"neither a file nor one of the rules .*; did you mean 'uniform'"),
        (
            "temperature:hot",
            "weights 'temperature:hot'; expected temperature, a colon and a number, as in temperature:4",
        ),
        ("temperature", "weights 'temperature'; expected temperature, a colon and a number"),
        ("natural:", "neither a file nor one of the rules"),
        ("temperature:-1", "expected a number from 0 to 100"),
        ("temperature:1e308", "expected a number from 0 to 100"),
        ([0.5, 0.5], "weights are list; expected {name: weight}, a rule"),
        ("unimax:0", "finite number above 0"),
    ],
)
def test_bad_specs_are_refused(spec, message):
    with pytest.raises(WeightsError, match=message):
        resolve_weights(spec, TOKENS, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "Input should be an object"),
        ("{", "not JSON .*may be truncated, `mixstream weights` makes one"),
        ("[" * 100_000, "not JSON"),
        ('{"a": 0.5, "b": 0.5, "a": 0.1}', "key 'a' stands twice; keep one"),
        ('{"format": "mixstream.plan", "weights": {"a": 1.0}}', r"format: .*\(found 'mixstream.plan'\)"),
        ('{"version": 99, "weights": {"a": 1.0}}', r"version: .*\(found 99\)"),
        ('{"wieghts": {}, "weights": {"a": 1.0}}', "unknown key 'wieghts'; did you mean 'weights'"),
        ('{"weights": {"a": true}}', r"weights.a: .*\(found True\)"),
    ],
)
def test_a_file_that_holds_no_weights_is_refused(tmp_path, text, message):
    path = tmp_path / "weights.json"
    path.write_text(text)
    with pytest.raises(FormatError, match=message):
        resolve_weights(path, TOKENS, 1)


def test_a_truth_value_is_no_weight(tmp_path):
    path = tmp_path / "weights.json"
    path.write_text('{"a": true, "b": 0, "c": 0, "d": 0, "e": 0}')
    with pytest.raises(WeightsError, match="weight of 'a' is True; expected a number from 0 to 1"):
        resolve_weights(path, TOKENS, 1)
