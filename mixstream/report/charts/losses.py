"""A run's losses, by stream and by language: of training in nats/token, held-out also in bits/byte."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np

from mixstream.metrics import HELDOUT_BITS, HELDOUT_NATS, LOSS, READ
from mixstream.mixture.simplex import Float64
from mixstream.report.charts.figure import Figure, Table
from mixstream.report.charts.lines import Axes, Line, languages_in, line_panels, lines_table, not_drawn, of_streams
from mixstream.report.read import RunRecord
from mixstream.report.series import Series

NATS, BITS = "nats/token", "bits/byte"


def loss_figures(run: RunRecord) -> Iterator[Figure]:
    """Return what there is to show of a run's losses over time."""
    losses = run.by_stream(LOSS)
    if losses:
        shares = run.by_stream(READ)
        weights = {name: shares[name] for name in losses if name in shares}
        by_language = languages_of(run, losses, weights)
        yield _figure(run, "loss-languages", "Training loss by language", _WEIGHTED, _lines(by_language))
        caption = "Mean of what was read since the line before, in nats/token."
        yield _figure(run, "loss", "Training loss by stream", caption, of_streams(run.plan, losses))
    nats, bits = run.by_stream(HELDOUT_NATS), run.by_stream(HELDOUT_BITS)
    if any(len(series.values) > 1 for series in nats.values()):
        yield _heldout(run, nats, bits)
        yield _heldout_languages(run, nats, bits)


_WEIGHTED = "Mean of its streams since the line before, as much of each as was read, in nats/token."


def languages_of(
    run: RunRecord, series: Mapping[str, Series], weights: Mapping[str, Series] | Mapping[str, float]
) -> dict[str, Series]:
    """Return the weighted mean of each language's streams, at the batches at which one of them at least is known.

    Args:
        run: whose streams they are.
        series: by stream.
        weights: of each stream, for all of the run or at the batches of its series; 1 where a stream has none.
    """
    found = {}
    for language, names in streams_by_language(run, series).items():
        batches = np.unique(np.concatenate([series[name].batches for name in names]))
        sums, total = np.zeros(len(batches)), np.zeros(len(batches))
        for name in names:
            places = np.searchsorted(batches, series[name].batches)
            weight = _weight(weights.get(name, 1.0), series[name].batches)
            with np.errstate(invalid="ignore"):  # of losses that are not finite the mean is not either
                sums[places] += np.where(weight > 0, weight * series[name].values, 0.0)
            total[places] += weight
        known = total > 0
        if known.any():
            found[language] = Series(batches[known], sums[known] / total[known])
    return found


def streams_by_language(run: RunRecord, series: Mapping[str, Series]) -> dict[str, list[str]]:
    """Return the streams of each language that there is a series of."""
    found: dict[str, list[str]] = {}
    for entry in run.plan.entries:
        if entry.name in series:
            found.setdefault(entry.language or entry.name, []).append(entry.name)
    return dict(sorted(found.items()))


def _weight(weight: Series | float, batches: Float64) -> Float64:
    """Return a weight at each of some batches."""
    if not isinstance(weight, Series):
        return np.full(len(batches), weight)
    places = np.searchsorted(weight.batches, batches).clip(max=len(weight.batches) - 1)
    return np.where(weight.batches[places] == batches, weight.values[places], 0.0)


def heldout_languages(run: RunRecord) -> tuple[dict[str, Series], dict[str, Series]]:
    """Return the held-out loss of each language over time: nats/token, and bits/byte where all its streams tell it.

    A language's loss is that of its streams' text as one: nats / tokens and bits / bytes. Of a run that has not ended
    the numbers of tokens are not known; then it is the plain mean of its streams.
    """
    nats, bits = run.by_stream(HELDOUT_NATS), run.by_stream(HELDOUT_BITS)
    tokens = {name: float(loss.num_tokens) for name, loss in run.result.heldout.items()} if run.result else {}
    known = tokens if nats.keys() <= tokens.keys() else {}
    sizes = {name: known[name] * _bytes_a_token(nats[name], bits[name]) for name in bits if name in known}
    told = {name for names in streams_by_language(run, nats).values() if set(names) <= bits.keys() for name in names}
    return (
        languages_of(run, nats, known),
        languages_of(run, {name: series for name, series in bits.items() if name in told}, sizes),
    )


def _bytes_a_token(nats: Series, bits: Series) -> float:
    """Return bytes of text that a token stands for, from one loss told both ways."""
    return nats.last / (bits.last * math.log(2)) if bits.last else 1.0


def _heldout(run: RunRecord, nats: Mapping[str, Series], bits: Mapping[str, Series]) -> Figure:
    return _both(run, "heldout-streams", "Held-out loss by stream", "On text that is not trained on.", nats, bits)


def _heldout_languages(run: RunRecord, nats: Mapping[str, Series], bits: Mapping[str, Series]) -> Figure:
    whole = run.result is not None and nats.keys() <= run.result.heldout.keys()
    caption = "Of its streams' text as one." if whole else "The plain mean of its streams, as long as the run goes on."
    by_nats, by_bits = heldout_languages(run)
    return _both(run, "heldout-languages", "Held-out loss by language", caption, by_nats, by_bits)


def _both(
    run: RunRecord, name: str, title: str, caption: str, nats: Mapping[str, Series], bits: Mapping[str, Series]
) -> Figure:
    """Return a figure of a loss in both units, nats/token above bits/byte."""
    panels, columns, rows = [], [], []
    for unit, series in ((NATS, nats), (BITS, bits)):
        if series:
            lines = of_streams(run.plan, series) or _lines(series)
            axes = Axes(f"held-out loss, {unit}", known=languages_in(run.plan))
            panels += line_panels(lines, axes)
            caption += not_drawn(lines, axes) if unit == NATS else ""
            table = lines_table(lines, axes, ".4f")
            columns = ["held-out loss", "unit", *table.columns[1:]]
            rows += [[row[0], unit, *row[1:]] for row in table.rows]
    return Figure(f"{name}-{run.name}", title, caption, panels, Table(columns, rows))


def _lines(series: Mapping[str, Series]) -> list[Line]:
    return [Line(language, language, "", own) for language, own in series.items()]


def _figure(run: RunRecord, name: str, title: str, caption: str, lines: list[Line]) -> Figure:
    axes = Axes("training loss, nats/token", known=languages_in(run.plan))
    caption += not_drawn(lines, axes)
    return Figure(f"{name}-{run.name}", title, caption, line_panels(lines, axes), lines_table(lines, axes, ".4f"))
