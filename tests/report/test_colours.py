"""Readers with each kind of colour blindness can tell the charts' colours apart."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from mixstream.report.charts.figure import COLOURS, DASHES, SHAPES

# What a linear RGB colour looks like to a reader who lacks one kind of cone: Machado et al. 2009, table 1, severity 1.
SEEN = {
    "all": np.eye(3),
    "no red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "no blue": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
WHITE = np.array([0.9505, 1.0, 1.089])


def linear(colour):
    part = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    x, y, z = np.cbrt(np.clip(TO_XYZ @ np.clip(rgb, 0, 1) / WHITE, 1e-6, None))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("reader", SEEN)
def test_colours_are_told_apart(reader):
    places = [lab(np.array(SEEN[reader]) @ linear(colour)) for colour in COLOURS]
    nearest = min(float(np.linalg.norm(one - other)) for one, other in combinations(places, 2))
    assert nearest > 18, "2.3 is what can just be seen, side by side"


def test_colours_are_seen_on_white():
    luminances = [float(TO_XYZ[1] @ linear(colour)) for colour in COLOURS]
    contrasts = [1.05 / (luminance + 0.05) for luminance in luminances]
    assert min(contrasts) > 2.2
    assert sum(contrast > 3 for contrast in contrasts) >= 6
    assert len(SHAPES) >= len(COLOURS)
    assert len(set(map(tuple, DASHES))) == len(DASHES)
