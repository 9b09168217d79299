"""The site builds without a warning, needs nothing but itself, and its reference has what it names."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

pytest.importorskip("mkdocs", reason="the extra docs is not installed")
pytest.importorskip("mkdocstrings", reason="the extra docs is not installed")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it: strictly."""
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", out],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_pages_fetch_nothing_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        text = page.read_text()
        fetched = re.findall(r'<(?:script|img|iframe|source)[^>]+src="?(https?:[^" >]+)', text)
        fetched += re.findall(r'<link[^>]+rel="?(?:stylesheet|preconnect|preload)"?[^>]*href="?(https?:[^" >]+)', text)
        fetched += re.findall(r'<link[^>]+href="?(https?:[^" >]+)"?[^>]*rel="?(?:stylesheet|preconnect|preload)', text)
        assert fetched == [], page


def test_the_reference_has_public_names_with_their_arguments(site):
    loader = (site / "reference" / "loader.html").read_text()
    for name in ("set_weights", "state_dict", "load_state_dict", "traffic"):
        assert f'id="mixstream.loader.MixtureLoader.{name}"' in loader, name
    plans = (site / "reference" / "mixture.html").read_text()
    assert 'id="mixstream.build_plan"' in plans
    for argument in ("budget_tokens", "max_repeats", "schedule", "lanes"):
        assert argument in plans, argument
    assert "BudgetError" in (site / "reference" / "names.html").read_text()


def test_programs_beside_the_pages_are_not_published(site):
    assert not list(site.rglob("*.py"))
