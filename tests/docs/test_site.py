"""The site builds without a warning, needs nothing but itself, and its reference has what it names."""

from __future__ import annotations

import ast
import html
import os
import re
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from conftest import REPOSITORY

TAGS = set(
    re.findall(r"\w+", "a article b code div h1 h2 h3 h4 h5 h6 li ol p pre small span table tbody td th thead tr ul")
)
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


def test_the_reference_has_every_name_that_pages_import(site):
    inventory = (site / "objects.inv").read_bytes().partition(b"zlib.\n")[2]
    known = {line.split()[0] for line in zlib.decompress(inventory).decode().splitlines()}
    programs = [
        program
        for page in (REPOSITORY / "docs").rglob("*.md")
        for program in re.findall(r"^```python[^\n]*\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    ]
    asked = {
        f"{node.module}.{name.name}"
        for program in programs
        for node in ast.walk(ast.parse(program))
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("mixstream")
        for name in node.names
    }
    assert len(asked) > 15
    assert asked <= known


def test_docstrings_are_shown_as_they_stand_in_the_files(site):
    """Nothing of an equation is taken for HTML or for emphasis, no list is run together, no name for a type."""
    for page in (site / "reference").glob("*.html"):
        (shown,) = re.findall(r"<article.*?</article>", page.read_text(), flags=re.DOTALL)
        assert set(re.findall(r"<([a-z][^\s/>]*)", shown)) <= TAGS, page.name
        for paragraph in re.findall(r"<p>(.*?)</p>", shown, flags=re.DOTALL):
            text = html.unescape(re.sub(r"<[^>]+>", "", paragraph))
            assert not re.search(r"\S {3,}\S", text), f"{page.name}: {text}"
        assert re.findall(r"<b><code>(?:<span[^>]*>)?[^<]*,(?:</span>)?</code></b>", shown) == [], page.name
    assert "hidden_size,\N{NO-BREAK SPACE}intermediate_size" in (site / "reference" / "runs.html").read_text()


def test_programs_beside_the_pages_are_not_published(site):
    assert not list(site.rglob("*.py"))
