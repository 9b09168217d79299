"""climb.json: a fitted Climb, readable by a person, and where its pilots lie.

`mixstream climb fit` writes it and `mixstream climb solve` answers from it alone: the law, what the fit left open, and
of every pilot its tokens, model size and proportions, so that the distance of an answer from them can be told.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from mixstream.errors import FitError
from mixstream.formats import FileModel, dump_json, read_json, write_whole
from mixstream.methods.climb.law import Law
from mixstream.methods.climb.neighbours import Guess
from mixstream.methods.climb.planner import Climb, Fitted
from mixstream.methods.planning.reach import Pilots
from mixstream.mixture.simplex import Float64

Above = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
REMEDY = "`mixstream climb fit` makes one of a table of runs"


class LanguagePart(FileModel):
    """The law of one language.

    Attributes:
        B, beta, E, eta: as in the law, of tokens in units of `reference_tokens`.
        A, a: of the model size, in units of `reference_size`; 0 where the pilots are of one size.
        b, k: {language: what it gives this one, lasting, and fading as 1/D}; itself is not in it.
        residual: root mean square error of log L over the pilots; null where it was not measured.
        neighbours: whose mean this is; null where it was measured.
        spread: {parameter: standard deviation over the neighbours}.
    """

    B: Above
    beta: Above
    E: Annotated[float, Field(ge=0)]
    eta: Above
    A: Annotated[float, Field(ge=0)]
    a: Annotated[float, Field(ge=0)]
    b: dict[str, float]
    k: dict[str, float]
    residual: Annotated[float, Field(ge=0)] | None = None
    neighbours: tuple[str, ...] | None = None
    spread: dict[str, float] = Field(default_factory=dict)


class PilotPart(FileModel):
    """One run: its tokens, its model's parameters (null: not told), proportions, and repeats where there were any."""

    tokens: Above
    parameters: Above | None
    proportions: dict[str, Share]
    repeats: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)


class ClimbFile(FileModel):
    """climb.json.

    Attributes:
        form: of r~, the one that was chosen; objective, targets, seed, neighbours: options of the planner.
        asked_form: the form that was asked for, auto or a name.
        reference_tokens, reference_size, sizes: D0, N0 and the pilots' model sizes.
        errors: {form: held-out error of log L}; null where it did not converge.
        notes: what the pilots leave open.
        languages: by name, in order.
        pilots: by name.
    """

    format: Literal["mixstream.climb"] = "mixstream.climb"
    version: Literal[1] = 1
    form: Literal["F1", "F2", "F3"]
    asked_form: Literal["auto", "F1", "F2", "F3"]
    objective: Literal["two_step", "sum_loss", "max_excess"]
    targets: dict[str, float] | None
    seed: int
    neighbours: dict[str, tuple[str, ...]] | None
    reference_tokens: Above
    reference_size: Above | None
    sizes: tuple[Above, ...]
    errors: dict[str, float | None]
    notes: tuple[str, ...]
    languages: dict[str, LanguagePart]
    pilots: dict[str, PilotPart]

    @model_validator(mode="after")
    def _names_agree(self) -> ClimbFile:
        names = set(self.languages)
        for name, part in self.languages.items():
            if not part.b.keys() == part.k.keys() == names - {name}:
                raise ValueError(f"b and k of {name!r} are of other languages than the file's")
        for name, pilot in self.pilots.items():
            if not pilot.proportions.keys() == names:
                raise ValueError(f"pilot {name!r} has proportions of other languages than the file's")
        return self


def save(climb: Climb, path: Path) -> None:
    """Write a climb.json.

    Raises:
        FitError: it has not been fitted.
        FormatError: the file cannot be written.
    """
    if climb.fitted is None:
        raise FitError("CLIMB has not been fitted, so there is nothing to save; fit it to a table of runs first")
    fitted, law = climb.fitted, climb.fitted.law
    content = ClimbFile(
        form=law.form,
        asked_form=climb.form,
        objective=climb.objective,
        targets=None if climb.targets is None else dict(climb.targets),
        seed=climb.seed,
        neighbours=None if climb.neighbours is None else {name: tuple(of) for name, of in climb.neighbours.items()},
        reference_tokens=law.reference_tokens,
        reference_size=_told(law.reference_size),
        sizes=law.sizes,
        errors={name: _told(error) for name, error in fitted.errors.items()},
        notes=fitted.notes,
        languages={name: _language(fitted, number) for number, name in enumerate(fitted.languages)},
        pilots=_pilots(fitted.pilots),
    )
    write_whole(path, dump_json(content))


def load(path: Path) -> Climb:
    """Return the fitted Climb of a climb.json.

    Raises:
        FormatError: the file is missing, or is no climb.json.
    """
    content = read_json(path, ClimbFile, REMEDY)
    parts = content.languages
    fitted = Fitted(
        languages=tuple(parts),
        law=_law(content),
        errors={name: math.inf if error is None else error for name, error in content.errors.items()},
        residual=np.array([math.nan if part.residual is None else part.residual for part in parts.values()]),
        guesses={
            name: Guess(part.neighbours, part.spread) for name, part in parts.items() if part.neighbours is not None
        },
        notes=content.notes,
        pilots=_lying(content),
    )
    return Climb(
        form=content.asked_form,
        objective=content.objective,
        targets=content.targets,
        seed=content.seed,
        neighbours=content.neighbours,
        fitted=fitted,
    )


def _told(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _language(fitted: Fitted, number: int) -> LanguagePart:
    law, name = fitted.law, fitted.languages[number]
    guess = fitted.guesses.get(name)

    def given(pairs: Float64) -> dict[str, float]:
        return {other: float(pairs[at, number]) for at, other in enumerate(fitted.languages) if at != number}

    return LanguagePart(
        B=float(law.scale[number]),
        beta=float(law.exponent[number]),
        E=float(law.floor[number]),
        eta=float(law.saturation[number]),
        A=float(law.size_scale[number]),
        a=float(law.size_exponent[number]),
        b=given(law.transfer),
        k=given(law.fading),
        residual=_told(float(fitted.residual[number])),
        neighbours=None if guess is None else guess.neighbours,
        spread={} if guess is None else dict(guess.spread),
    )


def _pilots(pilots: Pilots) -> dict[str, PilotPart]:
    names = pilots.sources
    return {
        run: PilotPart(
            tokens=float(pilots.tokens[row]),
            parameters=_told(float(pilots.parameters[row])),
            proportions=dict(zip(names, pilots.proportions[row].tolist(), strict=True)),
            repeats={name: told for name, told in zip(names, pilots.repeats[row].tolist(), strict=True) if told},
        )
        for row, run in enumerate(pilots.runs)
    }


def _law(content: ClimbFile) -> Law:
    parts = content.languages

    def column(name: str) -> Float64:
        return np.array([getattr(part, name) for part in parts.values()], dtype=np.float64)

    def pairs(name: str) -> Float64:
        return np.array([[getattr(to, name).get(giver, 0.0) for to in parts.values()] for giver in parts])

    return Law(
        form=content.form,
        reference_tokens=content.reference_tokens,
        scale=column("B"),
        exponent=column("beta"),
        floor=column("E"),
        saturation=column("eta"),
        transfer=pairs("b"),
        fading=pairs("k"),
        reference_size=math.nan if content.reference_size is None else content.reference_size,
        size_scale=column("A"),
        size_exponent=column("a"),
        sizes=content.sizes,
    )


def _lying(content: ClimbFile) -> Pilots:
    names, pilots = tuple(content.languages), content.pilots.values()
    return Pilots(
        sources=names,
        runs=tuple(content.pilots),
        proportions=np.array([[pilot.proportions[name] for name in names] for pilot in pilots]),
        tokens=np.array([pilot.tokens for pilot in pilots]),
        parameters=np.array([math.nan if pilot.parameters is None else pilot.parameters for pilot in pilots]),
        repeats=np.array([[pilot.repeats.get(name, 0.0) for name in names] for pilot in pilots]),
    )
