"""What the bytes of a column say: one function an encoding, strict, in a registry.

Every function takes the whole value and nothing but it, and raises ValueError where it is damaged.
Format: mosaicml-streaming 0.13, MDS version 2. All numbers are little-endian.
"""

from __future__ import annotations

import decimal
import json
import math
import pickle
from collections.abc import Callable
from functools import partial
from io import BytesIO
from typing import Any

import numpy as np

from mixstream.errors import MissingExtraError, StreamError, nearest

Decode = Callable[[memoryview], Any]

SCALARS = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
_KINDS = {"uint": 0, "int": 1, "float": 2}
# The byte that tells an array's type: its bits, plus its kind.
_DTYPE_CODES = {
    bits + kind: f"{name}{bits}"
    for name, kind in _KINDS.items()
    for bits in (8, 16, 32, 64)
    if f"{name}{bits}" in SCALARS
}
_SHAPE_DTYPES = ("<u1", "<u2", "<u4", "<u8")
_IMAGE_FORMATS = ("JPEG", "PNG")  # others may run programs


def find_decoder(encoding: str, allow_pickle: bool = False) -> Decode:
    """Return the function that turns a value's bytes into the value.

    Args:
        encoding: as in index.json: ``str``, ``ndarray:uint16:2048``, ...
        allow_pickle: accept ``pkl``, which runs whatever code its writer put there.

    Raises:
        StreamError: an encoding that is not known, or ``pkl`` where it is not allowed.
    """
    name, _, options = encoding.partition(":")
    if name == "ndarray":
        return _array_decoder(encoding, options)
    if name == "pkl" and not options:
        if not allow_pickle:
            raise StreamError(
                "encoding 'pkl' runs any code that its writer put there; where you trust the writer, allow it with "
                "allow_pickle=True"
            )
        return _unpickle
    if options or name not in DECODERS:
        raise StreamError(f"unknown encoding {encoding!r}{nearest(encoding, DECODERS)}")
    return DECODERS[name]


def _sized(value: memoryview, size: int) -> memoryview:
    if len(value) != size:
        raise ValueError(f"{len(value)} bytes, expected {size}")
    return value


def _scalar(dtype: np.dtype[Any], value: memoryview) -> Any:
    return np.frombuffer(_sized(value, dtype.itemsize), dtype)[0]


def _int(value: memoryview) -> int:
    return int.from_bytes(_sized(value, 8), "little", signed=True)


def _text(value: memoryview) -> str:
    return str(value, "utf-8")


def _decimal(value: memoryview) -> decimal.Decimal:
    try:
        return decimal.Decimal(_text(value))
    except decimal.InvalidOperation:
        raise ValueError(f"{_text(value)[:40]!r} is no decimal number") from None


def _json(value: memoryview) -> Any:
    try:
        return json.loads(_text(value))
    except RecursionError:
        raise ValueError("JSON of too many levels") from None


def _unpickle(value: memoryview) -> Any:
    try:
        return pickle.loads(value)
    except (pickle.UnpicklingError, EOFError, AttributeError, ImportError, LookupError, TypeError) as problem:
        raise ValueError(f"cannot be unpickled: {problem!r}") from None


def _array_decoder(encoding: str, options: str) -> Decode:
    """Return the decoder of ``ndarray``, ``ndarray:DTYPE`` or ``ndarray:DTYPE:N,N,...``."""
    name, _, shape = options.partition(":")
    sides = shape.split(",") if shape else []
    known = name in SCALARS or (name == "" and encoding == "ndarray")
    if not known or not all(side.isdecimal() and int(side) > 0 for side in sides) or encoding.endswith(":"):
        raise StreamError(f"unknown encoding {encoding!r}; expected ndarray, ndarray:DTYPE or ndarray:DTYPE:SHAPE")
    return partial(_array, _little(name) if name else None, tuple(map(int, sides)))


def _array(dtype: np.dtype[Any] | None, shape: tuple[int, ...], value: memoryview) -> Any:
    """Return an array, a view of `value`; what the encoding leaves open stands in front: type, then shape."""
    place = 0
    if dtype is None:
        if not len(value) or value[0] not in _DTYPE_CODES:
            raise ValueError(f"array of unknown type {value[:1].hex()!r}")
        dtype, place = _little(_DTYPE_CODES[value[0]]), 1
    if not shape:
        if len(value) <= place:
            raise ValueError("array without a shape")
        num_dimensions, code = divmod(value[place], 4)
        sides = np.dtype(_SHAPE_DTYPES[code])
        end = place + 1 + num_dimensions * sides.itemsize
        shape = tuple(np.frombuffer(_sized(value[place + 1 : end], end - place - 1), sides).tolist())
        place = end
    if not shape or 0 in shape or math.prod(shape) * dtype.itemsize != len(value) - place:
        raise ValueError(f"array of shape {shape} and type {dtype.name} in {len(value) - place} bytes")
    return np.frombuffer(value[place:], dtype).reshape(shape)


def _list(decode: Decode, start: int, value: memoryview) -> list[Any]:
    """Return a list: after `start` unused bytes their number, their sizes, themselves."""
    if len(value) < start + 4:
        raise ValueError(f"list in {len(value)} bytes")
    count = int.from_bytes(value[start : start + 4], "little")
    place = start + 4 + 4 * count
    if len(value) < place:
        raise ValueError(f"list of {count} elements in {len(value)} bytes")
    elements = []
    for size in value[start + 4 : place].cast("I"):
        elements.append(decode(_sized(value[place : place + size], size)))
        place += size
    if place != len(value):
        raise ValueError(f"list ends after {place} of {len(value)} bytes")
    return elements


def _raw_image(value: memoryview) -> Any:
    """Return a PIL image from width, height, length of the mode's name (uint32 each), that name, and pixels."""
    image = _pillow()
    if len(value) < 12:
        raise ValueError(f"image in {len(value)} bytes")
    width, height, mode_bytes = value[:12].cast("I")
    mode = str(value[12 : 12 + mode_bytes], "ascii")
    pixels = value[12 + mode_bytes :]
    if width * height > 8 * len(pixels):  # before memory is taken for them
        raise ValueError(f"image of {width} x {height} in {len(pixels)} bytes")
    try:
        made = image.frombytes(mode, (width, height), bytes(pixels))
    except (KeyError, OSError) as problem:
        raise ValueError(f"no image: {problem}") from None
    if len(made.tobytes()) != len(pixels):
        raise ValueError(f"image of {width} x {height} {mode} in {len(pixels)} bytes")
    return made


def _image(value: memoryview) -> Any:
    """Return a PIL image, read to its end, from a JPEG or PNG file."""
    image = _pillow()
    try:
        opened = image.open(BytesIO(value), formats=_IMAGE_FORMATS)
        opened.load()
    except (OSError, SyntaxError, LookupError, EOFError, image.DecompressionBombError) as problem:
        raise ValueError(f"no image: {problem}") from None
    return opened


def _pillow() -> Any:
    try:
        from PIL import Image
    except ModuleNotFoundError:
        raise MissingExtraError(
            "columns of images need the package 'pillow'; install it with pip install 'mixstream-llm[images]'"
        ) from None
    return Image


def _little(name: str) -> np.dtype[Any]:
    return np.dtype(name).newbyteorder("<")


DECODERS: dict[str, Decode] = {
    "bytes": bytes,
    "str": _text,
    "int": _int,
    **{name: partial(_scalar, _little(name)) for name in SCALARS},
    "str_int": lambda value: int(_text(value)),
    "str_float": lambda value: float(_text(value)),
    "str_decimal": _decimal,
    "json": _json,
    "pil": _raw_image,
    "jpeg": _image,
    "png": _image,
    "list[pil]": partial(_list, _raw_image, 4),
    "list[jpeg]": partial(_list, _image, 4),
    "list[png]": partial(_list, _image, 4),
    "jpeg_array": partial(_list, _image, 0),
    "jpegarray": partial(_list, _image, 0),
}
