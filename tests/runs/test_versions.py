"""versions.json tells with what a run was started, each time that it was other software."""

from __future__ import annotations

import platform
from importlib.metadata import version

import pytest

from mixstream.errors import FormatError
from mixstream.runs import versions as module
from mixstream.runs.versions import note_versions, read_versions


def test_a_start_with_other_software_is_noted(tmp_path, monkeypatch):
    path = tmp_path / "versions.json"
    assert read_versions(path) == ()
    note_versions(path)
    note_versions(path)
    (start,) = read_versions(path)
    assert start["python"] == platform.python_version()
    assert start["numpy"] == version("numpy")
    monkeypatch.setattr(module, "PACKAGES", ("numpy", "not-installed"))
    note_versions(path)
    assert [sorted(own) for own in read_versions(path)] == [sorted(start), ["numpy", "python", "system"]]


def test_a_damaged_one_is_refused(tmp_path):
    path = tmp_path / "versions.json"
    path.write_text("{")
    with pytest.raises(FormatError, match=r"versions.json: not JSON .*, remove it: it only tells a reader"):
        note_versions(path)
