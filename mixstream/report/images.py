"""Charts as pictures, for papers and slides: drawn without a browser."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import count
from pathlib import Path

from mixstream.errors import FormatError, nearest
from mixstream.report.charts.figure import Figure, Spec

FORMATS = ("svg", "png")
WIDTH = 720  # pixels
SCALE = 2  # of a PNG's pixels


def write_images(figures: Sequence[Figure], folder: Path, image_format: str) -> list[Path]:
    """Write every panel as a picture named after its figure, no two alike, and return their paths.

    Raises:
        FormatError: the folder is a file or cannot be made, or the format is not one of `FORMATS`.
    """
    check_format(image_format)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise FormatError(f"{folder}: no folder for images ({problem.strerror}); choose another") from None
    paths: list[Path] = []
    for figure in figures:
        stem = _free(figure.name.replace("/", "-"), {path.stem for path in paths})
        for number, spec in enumerate(figure.panels, start=1):
            end = f"-{number}" if len(figure.panels) > 1 else ""
            path = folder / f"{stem}{end}.{image_format}"
            path.write_bytes(drawn(spec, image_format))
            paths.append(path)
    return paths


def check_format(image_format: str) -> None:
    """Raise FormatError for a format that is not one of `FORMATS`."""
    if image_format not in FORMATS:
        raise FormatError(
            f"images of format {image_format!r}; expected one of {', '.join(FORMATS)}{nearest(image_format, FORMATS)}"
        )


def _free(stem: str, taken: Collection[str]) -> str:
    """Return a name that no picture has yet: two of a report may be alike where names of runs are joined."""
    stems = (stem if number == 1 else f"{stem}_{number}" for number in count(1))
    return next(name for name in stems if name not in taken and f"{name}-1" not in taken)


def drawn(spec: Spec, image_format: str) -> bytes:
    """Return a panel as a picture."""
    import vl_convert

    fixed = {**spec, "width": WIDTH}
    if "layer" in spec:  # without what answers a pointer
        fixed["layer"] = [layer for layer in spec["layer"] if "tooltip" not in layer.get("encoding", {})]
    if image_format == "png":
        return bytes(vl_convert.vegalite_to_png(fixed, scale=SCALE))
    return str(vl_convert.vegalite_to_svg(fixed)).encode()
