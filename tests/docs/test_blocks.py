"""What reads the pages sees what stands there, and a page that is not true fails."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY
from pages import prints, read_page
from parsing import check_bash, check_python, check_yaml
from scratch import Scratch, small

PAGE = """
<!-- test: given streams, bucket mine -->
Text.

<!-- test:
replace `-n 8` by `-n 2`
exits 2
-->
```bash
composer -n 8 train.py
```

1. In a list:

    ```yaml title="recipe.yaml"
    a: 1
      ```
    ```

<!-- test: parse only: it needs a GPU -->

```python
import torch
```
"""


def _page(tmp_path: Path, text: str):
    path = tmp_path / "page.md"
    path.write_text(text)
    return read_page(path)


def test_blocks_and_directives_are_read(tmp_path):
    page = _page(tmp_path, PAGE.replace("      ```\n", ""))
    assert page.given == ("streams", "bucket mine")
    bash, yaml_block, python = page.blocks
    assert (bash.language, bash.shown, bash.code) == ("bash", "composer -n 8 train.py\n", "composer -n 2 train.py\n")
    assert (bash.exits, bash.line) == (2, 9)
    assert (yaml_block.title, yaml_block.code) == ("recipe.yaml", "a: 1\n")
    assert (python.only_parsed, python.exits, python.replacements) == ("it needs a GPU", 0, ())


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("<!-- test: parse only -->\n```bash\nls\n```\n", "no such directive: 'parse only'"),
        ("```\nls\n```\n", "a block is one of bash, python, .* not ''"),
        ("<!-- test: exits 1 -->\ntext\n```bash\nls\n```\n", "no block follows the directive 'exits 1'"),
        ("```bash\nls\n```\n<!-- test: exits 1 -->\n", "no block follows the directive 'exits 1'"),
        ("<!-- test: printed -->\n```bash\nls\n```\n", "only text is printed"),
    ],
)
def test_directives_that_mean_nothing_fail(tmp_path, text, match):
    with pytest.raises(AssertionError, match=match):
        _page(tmp_path, text)


def test_a_replacement_that_replaces_nothing_fails(tmp_path):
    (block,) = _page(tmp_path, "<!-- test: replace `-n 8` by `-n 2` -->\n```bash\nls\n```\n").blocks
    with pytest.raises(AssertionError, match="nothing to replace: the block does not have '-n 8'"):
        _ = block.code


@pytest.mark.parametrize(
    ("expected", "output", "is_printed"),
    [
        ("a  b\nc\n", "x\n  a b\nc\ny\n", True),
        ("a b\nc\n", "a b\nx\nc\n", False),
        ("a b\n...\nc\n", "a b\nx\ny\nc\n", True),
        ("took ... s\n", "took 0.3 s\n", True),
        ("took ... s\n", "took 0.3 m\n", False),
        ("a\n", "ab\n", False),
        ("", "anything", True),
    ],
)
def test_what_was_printed_is_compared_line_by_line(expected, output, is_printed):
    assert prints(expected, output) is is_printed


@pytest.mark.parametrize(
    ("code", "match"),
    [
        ("mixstream plan streams --budget 3\n", "mixstream plan has no --budget"),
        ("A=1 mixstream climb plots x | head\n", "mixstream climb plots"),
        ("bash x; mixstream convert x \\\n  --no-such-option\n", "mixstream convert has no --no-such-option"),
        ("make dmeo\n", "make dmeo"),
        ("pip install 'mixstream-llm[trian]'\n", "trian"),
        ("composer -n 8 recipes/trian.py recipes/cpt.yaml\n", "there is no recipes/trian.py"),
        ("composer -n 8 recipes/train.py recipes/cpt.yaml --stream s\n", "mixstream train has no --stream"),
        ("torchrun --nproc-per-node 2 examples/ddp.py streams out --token 9\n", "examples/ddp.py has no --token"),
        ('eval "$(mixstream complete bash)"\n', "mixstream complete"),
        ("mixtream plan streams\n", "no page speaks of mixtream"),
        ("if then\n", "syntax error"),
    ],
)
def test_commands_that_cannot_be_run_are_parsed(code, match):
    with pytest.raises(AssertionError, match=match):
        check_bash(code)


def test_right_commands_parse():
    check_bash(
        "export A=1\nsrun mixstream climb run pilots \\\n  --help\nmake demo CORPORA=x && composer -n 8 recipes/train.py"
    )
    check_bash("mixstream convert x --out y --sequence-length 128   # --not-an-option\npip install -e '.[all]'")


def test_python_that_is_not_run_imports_what_exists():
    check_python("from mixstream.loader import MixtureLoader\nimport nowhere")
    with pytest.raises(AssertionError, match=r"mixstream.loader has no MixtureLoaders"):
        check_python("from mixstream.loader import MixtureLoaders")
    with pytest.raises(SyntaxError):
        check_python("if")


@pytest.mark.parametrize(
    ("code", "match"),
    [
        ("logger: {}\n", "a recipe has no section logger"),
        ("loggers: {tensorbord: {}}\n", "tensorbord"),
        ("method: {name: xdoge, interval_batches: 1, warmup: 3}\n", "warmup"),
        ("- {at: 5000ba, weigths: uniform}\n", "weigths"),
        ("a: [\n", "expected the node content"),
    ],
)
def test_sections_of_recipes_are_read_as_such(code, match):
    with pytest.raises((AssertionError, ValueError, yaml.YAMLError), match=match):
        check_yaml(code)


def test_blocks_share_a_folder_and_what_they_export(tmp_path):
    scratch = Scratch(tmp_path, {"GIVEN": "1"})
    scratch.bash("export NAME=value\necho $GIVEN > file")
    scratch.bash('test "$NAME" = value; cat file; echo "error: x" >&2; exit 3', exits=3)
    assert scratch.printed == "1\nerror: x\n"
    scratch.python("import mixstream; print(mixstream.__file__)")
    assert scratch.printed.strip() == str(REPOSITORY / "mixstream" / "__init__.py")
    with pytest.raises(AssertionError, match=r"exit code 1, not 0:\n$"):
        scratch.bash("false\necho after")


def test_recipes_are_made_small_with_the_same_keys():
    for path in (REPOSITORY / "recipes").glob("*.yaml"):
        recipe = yaml.safe_load(path.read_text())
        made = small(recipe)
        assert made.keys() == recipe.keys()
        runs = [run for run in made.values() if isinstance(run, dict) and "mixture" in run]
        sizes = [run["mixture"].get("budget_tokens", 0) for run in runs]
        assert all(size <= 8 * 16 * 128 for size in sizes), path


def test_the_commands_of_the_readme_exist():
    lines = re.findall(r"^(?:make|mixstream|composer) .*$", (REPOSITORY / "README.md").read_text(), flags=re.MULTILINE)
    assert len(lines) > 15
    for line in lines:
        check_bash(line)
