"""The compiled inner loops, where they could be built.

`native` is the module `mixstream._kernels` (C, of GIL-free or microsecond calls), or None where it was installed
without a compiler or ``MIXSTREAM_KERNELS=0`` says not to use it. Each kernel has a twin in Python, which reads like the
mathematics, gives the same numbers, and takes its place: slower, never different.
"""

from __future__ import annotations

import importlib
import os
from types import ModuleType


def _find() -> ModuleType | None:
    if os.environ.get("MIXSTREAM_KERNELS") == "0":
        return None
    try:
        return importlib.import_module("mixstream._kernels")
    except ImportError:
        return None


native = _find()
