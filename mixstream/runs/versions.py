"""versions.json: with which software a run was made, each time it was started."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from mixstream.formats import FileModel, dump_json, read_json, write_whole

PACKAGES = ("mixstream-llm", "torch", "mosaicml", "mosaicml-streaming", "transformers", "numpy")
REMEDY = "remove it: it only tells a reader with what the run was made"


class Versions(FileModel):
    """The versions of a run's starts, the newest last; a start with the same as the one before adds nothing.

    Attributes:
        starts: {package, or ``python`` or ``system``: version}.
    """

    format: Literal["mixstream.versions"] = "mixstream.versions"
    version: Literal[1] = 1
    starts: tuple[dict[str, str], ...]


def versions_now() -> dict[str, str]:
    """Return the versions of what is installed here."""
    found = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def note_versions(path: Path) -> None:
    """Add what a run is started with to its versions.json."""
    now = versions_now()
    starts = read_versions(path)
    if not starts or starts[-1] != now:
        write_whole(path, dump_json(Versions(starts=(*starts, now))))


def read_versions(path: Path) -> tuple[dict[str, str], ...]:
    """Return what a versions.json tells, nothing where there is none: older runs have none.

    Raises:
        FormatError: it is not a versions.json.
    """
    return read_json(path, Versions, REMEDY).starts if path.exists() else ()
