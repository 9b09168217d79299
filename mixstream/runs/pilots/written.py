"""pilots.json: which pilots a folder has, what they are to read, and where each is."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from mixstream.errors import StateError
from mixstream.formats import FileModel, read_json
from mixstream.runs.folder import RunFolder
from mixstream.runs.pilots.groups import By
from mixstream.runs.recipe import Seed
from mixstream.runs.sections import PositiveInt, Share

REMEDY = "`mixstream climb pilots` writes it"


class Pilot(FileModel):
    """One run.

    Attributes:
        kind: a mixture, or one source alone.
        streams: what it reads: the streams, or a view of them.
        proportions: by source, as designed; what is read differs by less than a sample a batch.
    """

    name: str
    kind: Literal["mixed", "alone"]
    budget_tokens: PositiveInt
    seed: Seed
    streams: str
    proportions: dict[str, Share]


class Pilots(FileModel):
    """pilots.json.

    Attributes:
        by: what a source is: a language, or a stream.
        streams: those that the pilots are for.
        target_tokens: tokens of the run that they are for; None: nothing was matched to one.
        groups: {stream: source}.
    """

    format: Literal["mixstream.pilots"] = "mixstream.pilots"
    version: Literal[1] = 1
    by: By
    streams: str
    target_tokens: PositiveInt | None
    groups: dict[str, str]
    pilots: tuple[Pilot, ...]

    @property
    def sources(self) -> tuple[str, ...]:
        """What is mixed, in the order of names."""
        return tuple(sorted(set(self.groups.values())))


class PilotsFolder:
    """The places of pilots."""

    def __init__(self, path: Path) -> None:
        """Describe the pilots in `path`."""
        self.path = path
        self.file = path / "pilots.json"
        self.slurm = path / "slurm.sh"
        self.views = path / "views"
        self.logs = path / "logs"

    def recipe(self, name: str) -> Path:
        """Return where a pilot's recipe is."""
        return self.path / "recipes" / f"{name}.yaml"

    def run(self, name: str) -> RunFolder:
        """Return a pilot's run."""
        return RunFolder(self.path / "runs" / name)

    def is_done(self, name: str) -> bool:
        """Return whether a pilot has ended."""
        return self.run(name).result.exists()

    def read(self) -> Pilots:
        """Return what pilots.json says.

        Raises:
            StateError: the folder has none.
            FormatError: it is none.
        """
        if not self.file.exists():
            raise StateError(f"{self.path}: holds no pilots (no pilots.json); {REMEDY}")
        return read_json(self.file, Pilots, REMEDY)
