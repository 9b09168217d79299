"""What deciding imports: never torch, streaming or composer (docs/decisions.md)."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "streaming", "composer", "transformers", "pyarrow", "vl_convert", "converters")


@pytest.mark.parametrize(
    "module", ["mixstream", "mixstream.mixture.plan", "mixstream.methods.learning.history", "mixstream.cli"]
)
def test_what_decides_is_light(module):
    code = f"import sys, {module}; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_a_plan_is_made_without_torch(streams, tmp_path):
    code = (
        "import sys\n"
        "from mixstream.cli import app\n"
        f"app(['plan', {str(streams)!r}, '--budget-tokens', '4000', '--batch-size', '5',"
        f" '--out', {str(tmp_path / 'plan.json')!r}], standalone_mode=False)\n"
        f"assert not [m for m in {HEAVY} if m in sys.modules]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)
    assert (tmp_path / "plan.json").exists()


def test_the_loader_does_not_import_streaming_or_composer():
    """Worker processes that are spawned would pay half a gigabyte each for it."""
    code = "import sys, mixstream.loader; print([m for m in ('streaming', 'composer', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
