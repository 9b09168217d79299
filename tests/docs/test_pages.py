"""The documentation is true: the blocks of every page run, in their order, in an empty folder.

``converting.md``, whose commands need corpora of many layouts, has tests of its own; every other page is found and run here.
``pages.py`` says which comments tell how a block is tested, ``scratch.py`` how recipes are made small.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import REPOSITORY
from pages import Block, prints, read_page
from parsing import parse
from scratch import Scratch
from servers.s3 import S3Server

DOCS = REPOSITORY / "docs"
TESTED_ELSEWHERE = {"converting.md"}
PAGES = sorted(
    str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md") if str(path.relative_to(DOCS)) not in TESTED_ELSEWHERE
)

pytest.importorskip("composer", reason="pages train")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Scratch:
    """A folder with the corpus that ships here as ``streams``."""
    scratch = Scratch(tmp_path_factory.mktemp("made"))
    scratch.bash("mixstream convert recipes/quickstart --out streams --sequence-length 128 --holdout 0.15")
    return scratch


@pytest.fixture(scope="session")
def made_runs(made: Scratch) -> Scratch:
    """The same folder with a chain that has ended: runs/demo with proxy, base and uniform."""
    made.bash("mixstream train recipes/demo.yaml --streams streams --out runs/demo")
    return made


@pytest.fixture
def provide(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[tuple[str, ...]], Scratch]:
    """Return a function that makes a page's folder with what the page asks to be given."""

    def make(given: tuple[str, ...]) -> Scratch:
        buckets = [thing.removeprefix("bucket ") for thing in given if thing.startswith("bucket ")]
        environment: dict[str, str] = {}
        if buckets:
            pytest.importorskip("obstore", reason="obstore is not installed; it needs Python 3.11")
            server: S3Server = request.getfixturevalue("s3")
            environment = server.environment
            for name in buckets:
                server.create_bucket(name)
                request.addfinalizer(lambda name=name: server.drop_bucket(name))
        scratch = Scratch(tmp_path, environment)
        for thing in set(given) - {f"bucket {name}" for name in buckets}:
            source = {"streams": "made", "runs/demo": "made_runs"}.get(thing)
            assert source, f"pages are given streams, runs/demo or bucket NAME, not {thing!r}"
            shutil.copytree(request.getfixturevalue(source).folder / thing, tmp_path / thing)
        return scratch

    return make


@pytest.mark.parametrize("name", PAGES)
def test_every_block_of_a_page_runs(name: str, provide: Callable[[tuple[str, ...]], Scratch]):
    page = read_page(DOCS / name)
    parsed = [block for block in page.blocks if block.only_parsed or block.language == "text" or block.title]
    scratch = None if len(parsed) == len(page.blocks) and not page.given else provide(page.given)
    before = ""
    for block in page.blocks:
        try:
            before = _test(block, scratch, before)
        except AssertionError as problem:
            raise AssertionError(f"docs/{name}, line {block.line}: {problem}\n{block.code}") from problem


def _test(block: Block, scratch: Scratch | None, before: str) -> str:
    """Test a block; return the Python code that a block which goes on begins with."""
    code = before + block.code if block.goes_on else block.code
    if block.printed:
        assert scratch is not None, "nothing ran before"
        assert prints(block.code, scratch.printed), f"this was printed instead:\n{scratch.printed[-6000:]}"
    elif block.only_parsed or scratch is None or block.exits or block.language not in ("bash", "python"):
        parse(block)
    if scratch is None or block.only_parsed:
        return before
    if block.title:
        scratch.save(block.title, block.code)
    elif block.language == "bash":
        scratch.bash(code, block.exits)
    elif block.language == "python":
        scratch.python(code, block.exits)
        return code
    return before


def test_the_list_of_pages_tested_elsewhere_is_of_pages():
    assert {name for name in TESTED_ELSEWHERE if not (DOCS / name).exists()} == set()
    assert "index.md" in PAGES
