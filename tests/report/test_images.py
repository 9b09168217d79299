"""Charts as pictures, without a browser."""

from __future__ import annotations

import struct
from xml.etree import ElementTree

import pytest
from made_runs import make_run

from mixstream.errors import FormatError
from mixstream.report.html import sections_of, write_report
from mixstream.report.images import SCALE, WIDTH, write_images
from mixstream.report.read import read_runs


def test_every_panel_is_a_picture(tmp_path):
    folder = make_run(tmp_path / "proxy", learnt=True)
    write_report([folder], tmp_path / "report.html", tmp_path / "images")
    figures = [figure for section in sections_of(read_runs([folder])) for figure in section.figures]
    paths = sorted((tmp_path / "images").iterdir())
    assert len(paths) == sum(len(figure.panels) for figure in figures)
    assert {"weights-proxy.svg", "heldout-1.svg", "heldout-2.svg"} <= {path.name for path in paths}
    weights = ElementTree.parse(tmp_path / "images" / "weights-proxy.svg")
    paths_drawn = [own for own in weights.iter("{http://www.w3.org/2000/svg}path") if own.get("stroke-width") == "1.6"]
    assert len(paths_drawn) == 3, "a line a stream"
    told = {text.text for text in weights.iter("{http://www.w3.org/2000/svg}text")}
    assert {"ca", "eu", "a", "b", "batch", "weight"} <= told


def test_pictures_may_be_of_pixels(tmp_path):
    (weights, *_) = sections_of(read_runs([make_run(tmp_path / "a", learnt=True)]))[1].figures
    (path,) = write_images([weights], tmp_path / "images", "png")
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", content[16:24])
    assert width > SCALE * WIDTH
    assert height > 300


def test_what_cannot_be_drawn_is_refused(tmp_path):
    with pytest.raises(FormatError, match=r"images of format 'pgn'; expected one of svg, png; did you mean 'png'\?"):
        write_images([], tmp_path, "pgn")
    (tmp_path / "file").touch()
    with pytest.raises(FormatError, match=r"file: no folder for images \(File exists\); choose another"):
        write_images([], tmp_path / "file", "svg")


def test_no_picture_is_written_over_another(tmp_path):
    (tmp_path / "x").mkdir()
    runs = read_runs([make_run(tmp_path / name) for name in ("runs", "base", "x-base", "x/base")])
    figures = [figure for section in sections_of(runs) for figure in section.figures if "loss" in figure.name]
    assert len({figure.name.replace("/", "-") for figure in figures}) < len(figures)  # loss-runs, of all and of one
    paths = write_images(figures, tmp_path / "images", "svg")
    assert (
        len(set(paths)) == sum(len(figure.panels) for figure in figures) == len(list((tmp_path / "images").iterdir()))
    )
