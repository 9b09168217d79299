"""The compiled inner loops, where they could be built.

`native` is the module `mixstream._kernels` (C, of GIL-free or microsecond calls), or None where it was installed
without a compiler or ``MIXSTREAM_KERNELS=0`` says not to use it. Each kernel has a twin in Python, which reads like the
mathematics, gives the same numbers, and takes its place: slower, never different.
"""

from __future__ import annotations

import os
from typing import Any

native: Any = None
if os.environ.get("MIXSTREAM_KERNELS") != "0":
    try:
        from mixstream import _kernels as native
    except ImportError:
        native = None
