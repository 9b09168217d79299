"""Floors and caps: one projection of what a method wants onto what a run can have.

    argmin_a  d(a, w)   s.t.  sum_i a_i = 1,  a_i <= c_i,  and either
        a_i >= f_i                    a floor for each stream (XDoGE's gamma = 0.02), or
        sum_{i in L} a_i >= F_L       a floor for each language L

    kl    d = sum_i a_i log(a_i / w_i): what no bound holds keeps its ratios; multiplicative, as the updates are
    l2    d = sum_i (a_i - w_i)^2: what no bound holds keeps its differences
    mix   (1 - sum f) w + f, then the caps by kl; of a language's floor each stream gets in proportion to w
    clip  clip(w, f, c) / sum, once: may leave the bounds; only to reproduce others' numbers

XDoGE's paper (arXiv 2512.10545) sets floors "by weight clipping"; its body was not readable to us, so all four
are readings of it: `kl` is ours and the default, `clip` is what a short implementation would do, `mix` is
DoReMi's smoothing (arXiv 2305.10429). Caps c_i = min(1, R_i U_i / D) put repeat budgets into the optimum, which
is ours too: the paper leaves availability open.

A language's floor raises its streams together. Let b_i be the nearest point to its streams' weights with sum
F_L; then the floor of the language is the same as floors b_i of its streams (for kl: its streams get
max(lambda, lambda_L) w_i, and b_i = lambda_L w_i, up to caps; for l2 alike), so that one projection does both.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mixstream.errors import BudgetError, FloorError, MixtureError, WeightsError
from mixstream.mixture.simplex import (
    SUM_TOLERANCE,
    Float64,
    check_floor,
    project,
    project_l2,
    round_down,
    round_up,
)
from mixstream.streams.index import Int64

FloorForm = Literal["kl", "l2", "mix", "clip"]
FORMS = ("kl", "l2", "mix", "clip")

_SMALL = 1e-12  # rounding of sums that are compared with 1
_INFINITELY_SMALL = 1e-307  # a weight of 0 that a floor holds up: it may rise where the others are full
_NEGLIGIBLE = 1e-18  # what is left of it where they are not


@dataclass(frozen=True, eq=False)
class Bounds:
    """The least and the greatest weights of K streams, and how weights are brought between them.

    Attributes:
        floor: least weight: one number for all, or (K,); with `languages`, of each language: one number, or (L,).
        cap: (K,) greatest weights, such as `repeat_caps` gives; 1 for none.
        form: which projection.
        languages: (K,) number of each stream's language, 0 to L - 1, where the floor is each language's.
        names: the K streams, for messages.
    """

    floor: float | Float64
    cap: Float64
    form: FloorForm = "kl"
    languages: Int64 | None = None
    names: Sequence[str] | None = None

    def __post_init__(self) -> None:
        """Refuse bounds that no weights can keep.

        Raises:
            FloorError: floors above the whole, or above caps.
            BudgetError: caps below the whole.
            MixtureError: an unknown form, `clip` of languages, or languages that are not numbered 0 to L - 1.
        """
        if self.form not in FORMS:
            raise MixtureError(f"floor_form={self.form!r}; expected one of {', '.join(FORMS)}")
        if self.languages is not None:
            self._check_languages(self.languages)
        self._check_floors()
        self._check_caps()

    @property
    def warning(self) -> str | None:
        """What a person should know of the form, None where it keeps its promise."""
        if self.form != "clip":
            return None
        return (
            "floor_form 'clip' renormalises once after clipping, so weights can end below the floor or above "
            "their caps; it is there to reproduce other implementations, use 'kl' to keep the floor"
        )

    def apply(self, weights: Float64) -> Float64:
        """Return the point within the bounds that stands for `weights` (K,), sum 1.

        Under ``kl``, ``l2`` and ``mix`` the bounds hold within 1e-12, and so does the sum. A stream of weight 0
        gets its floor, and more where the others are full; without a floor it gets nothing (but under ``l2``).

        Raises:
            WeightsError: weights that are none, or the streams that have weight cannot fill the mixture.
        """
        self._check_weights(weights)
        weights = weights / math.fsum(weights)
        if self.form == "clip":
            return self._clipped(weights)
        if self.form == "l2":
            least = self.floors if self.languages is None else self._shared_floors(weights)
            return project_l2(weights, least, self.cap)
        return self._apply_kl(self._mixed(weights) if self.form == "mix" else weights)

    def present(self, presence: Float64) -> Bounds:
        """Return the bounds of a time at which streams are only partly there.

        A stream's floor comes with its presence, a language's with that of the stream of it that is there most;
        what is absent can have nothing.

        Args:
            presence: (K,) from 0 to 1, as `mixstream.methods.learning.stages` gives it.

        Raises:
            FloorError, BudgetError: the streams that are there cannot keep their floors, or fill the mixture.
        """
        there = presence
        if self.languages is not None:
            there = np.zeros(int(self.languages.max()) + 1)
            np.maximum.at(there, self.languages, presence)
        return dataclasses.replace(self, floor=self.floor * there, cap=np.where(presence > 0, self.cap, 0.0))

    @property
    def floors(self) -> Float64:
        """Floor of each stream, (K,), or with `languages` of each language, (L,)."""
        count = len(self.cap) if self.languages is None else int(self.languages.max()) + 1
        return np.broadcast_to(np.asarray(self.floor, dtype=np.float64), (count,))

    def _apply_kl(self, weights: Float64) -> Float64:
        held_up = self.floors if self.languages is None else self.floors[self.languages]
        wanted = np.where((weights == 0) & (held_up > 0), _INFINITELY_SMALL, weights)
        least = self.floors if self.languages is None else self._shared_floors(wanted)
        shares = project(wanted, least, self.cap)
        return np.where((weights == 0) & (shares < _NEGLIGIBLE), 0.0, shares)

    def _clipped(self, weights: Float64) -> Float64:
        clipped = np.clip(weights, self.floors, self.cap)
        total = math.fsum(clipped)
        if total == 0:
            raise WeightsError("every stream that has weight has a cap of 0; give weight to more streams")
        shares: Float64 = clipped / total
        return shares

    def _mixed(self, weights: Float64) -> Float64:
        """Return (1 - sum f) w + f; f_i is a language's floor in proportion to its streams' weights, or evenly."""
        least = self.floors
        if self.languages is None:
            return (1 - math.fsum(least)) * weights + least
        held = np.bincount(self.languages, weights)[self.languages]
        evenly = 1 / np.bincount(self.languages)[self.languages]
        part = np.divide(weights, held, out=evenly, where=held > 0)
        mixed: Float64 = (1 - math.fsum(least)) * weights + least[self.languages] * part
        return mixed

    def _shared_floors(self, weights: Float64) -> Float64:
        """Return the floors of streams, (K,), that stand for the languages' floors at these weights."""
        assert self.languages is not None
        shared = np.zeros_like(weights)
        nearest = project_l2 if self.form == "l2" else project
        order = np.argsort(self.languages, kind="stable")
        members = np.split(order, np.flatnonzero(np.diff(self.languages[order])) + 1)
        for floor, streams in zip(self.floors, members, strict=True):
            if floor > 0:
                cap = np.minimum(self.cap[streams], floor)
                shared[streams] = nearest(weights[streams], np.zeros(len(streams)), cap, total=float(floor))
        return shared

    def _check_weights(self, weights: Float64) -> None:
        if weights.shape != self.cap.shape:
            raise WeightsError(f"weights of {weights.shape} for {len(self.cap)} streams; give every stream one")
        good = np.isfinite(weights) & (weights >= 0)
        if not good.all():
            raise WeightsError(f"weights of {self._told(~good)} are negative or not finite: {weights[~good].tolist()}")
        if abs(math.fsum(weights) - 1) > SUM_TOLERANCE:
            raise WeightsError(f"weights sum to {math.fsum(weights)!r}, expected 1 within {SUM_TOLERANCE}")

    def _check_languages(self, languages: Int64) -> None:
        if self.form == "clip":
            raise MixtureError("floor_form 'clip' knows floors of streams only; use 'kl' for floors of languages")
        used = np.unique(languages)
        if languages.shape != self.cap.shape or used.tolist() != list(range(len(used))):
            raise MixtureError(
                f"languages are numbered {languages.tolist()}; expected one number for each of the "
                f"{len(self.cap)} streams, from 0 up with none left out"
            )

    def _check_floors(self) -> None:
        of = "streams" if self.languages is None else "languages"
        count = len(self.cap) if self.languages is None else int(self.languages.max()) + 1
        floor = np.asarray(self.floor, dtype=np.float64)
        if floor.shape not in ((), (count,)):
            raise FloorError(f"floors of {floor.shape} for {count} {of}; give one number, or one for each")
        if not (np.isfinite(floor) & (floor >= 0)).all():
            raise FloorError(f"floor={floor.tolist()}; expected finite numbers of at least 0")
        total = math.fsum(self.floors)
        if total > 1 + _SMALL:
            held = self.floors[self.floors > 0]
            if (held == held[0]).all():
                check_floor(float(held[0]), len(held), of)
            raise FloorError(
                f"the floors of {len(held)} {of} add up to {total:g} of the mixture; divide them by {round_up(total)} "
                f"or drop streams"
            )

    def _check_caps(self) -> None:
        cap = self.cap
        if not (cap >= 0).all():  # nan too
            raise BudgetError(f"caps of {self._told(~(cap >= 0))} are {cap[~(cap >= 0)].tolist()}; expected 0 or more")
        supply = math.fsum(cap)
        if supply < 1 - _SMALL:
            raise BudgetError(
                f"the caps of {len(cap)} streams add up to {supply:.6g} of the mixture, expected 1 or more; raise "
                f"max_repeats{f' {round_up(1 / supply)} times' if supply else ''}, lower budget_tokens, or add data"
            )
        room = cap if self.languages is None else np.bincount(self.languages, cap)
        short = self.floors > room + _SMALL
        if short.any():
            least = int(np.argmin(np.where(short, room, np.inf)))
            tight = short if self.languages is None else (self.languages == least)
            what = f"of {self._told(tight)}" if self.languages is None else f"of one language, {self._told(tight)},"
            raise FloorError(
                f"the floor {what} is above the cap: {self.floors[least]:g} against {room[least]:.6g}; choose a floor "
                f"of at most {round_down(float(room[least])) if room[least] else 0}, raise max_repeats, or lower "
                f"budget_tokens"
            )

    def _told(self, which: np.typing.NDArray[np.bool_]) -> str:
        numbers = np.flatnonzero(which)
        told = [repr(self.names[i]) if self.names else f"stream {i}" for i in numbers[:5]]
        return ", ".join(told) + (f" and {len(numbers) - 5} more" if len(numbers) > 5 else "")


def repeat_caps(max_repeats: Float64, sizes_tokens: Float64 | Int64, budget_tokens: int) -> Float64:
    """Return the greatest weights that repeat budgets allow: c_i = min(1, R_i U_i / D).

    A weight at its cap for a whole run reads its stream R_i times.

    Args:
        max_repeats: R, (K,) repeats, above 0; infinite: unlimited.
        sizes_tokens: U, (K,) tokens.
        budget_tokens: D, tokens of the run.

    Raises:
        BudgetError: a budget, of the run or of repeats, that is not above 0.

    Source: ours; XDoGE's paper names availability as an open question.
    """
    if budget_tokens <= 0:
        raise BudgetError(f"budget_tokens={budget_tokens}; expected the tokens of a run, above 0")
    if not (max_repeats > 0).all():
        raise BudgetError(f"max_repeats {max_repeats.tolist()}; expected numbers above 0 (infinite: unlimited)")
    unlimited = np.isinf(max_repeats)
    caps = np.minimum(1.0, np.where(unlimited, 0.0, max_repeats) * (sizes_tokens / budget_tokens))
    return np.where(unlimited, 1.0, caps)
