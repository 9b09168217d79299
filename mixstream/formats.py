"""The frame of every file that stands between two stages: versioned, checked, written whole.

docs/formats.md describes the files; the room that owns a file declares its model as a `Document`.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from mixstream.errors import FormatError, nearest

DocumentT = TypeVar("DocumentT", bound="Document")


class Document(BaseModel):
    """Part of a file format: immutable, typed, without unknown keys, NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def parse(model: type[DocumentT], data: Any, where: str, error: type[FormatError] = FormatError) -> DocumentT:
    """Return `data` as a `model`.

    Args:
        model: the format.
        data: what was read, of plain dicts, lists, strings and numbers.
        where: the file's name, for the message.
        error: the class of error to raise.

    Raises:
        FormatError: naming every key that is wrong, what was found there, and for an unknown key the
            nearest known one.
    """
    try:
        # Through JSON, where types are strict and yet a list is a tuple.
        return model.model_validate_json(json.dumps(data, default=str), strict=True)
    except ValidationError as problems:
        told = [_tell(problem, model) for problem in problems.errors(include_url=False)]
        raise error(f"{where}: " + "; ".join(told)) from None


def read_json(path: Path, model: type[DocumentT], missing: str) -> DocumentT:
    """Read a JSON file as a `model`; `missing` says what to do when it is not there.

    Raises:
        FormatError: the file is missing, is not JSON, or does not fit `model`.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FormatError(f"{path}: no such file; {missing}") from None
    except OSError as problem:
        raise FormatError(f"{path}: cannot be read ({problem.strerror}); {missing}") from None
    except (ValueError, RecursionError) as problem:
        raise FormatError(f"{path}: not JSON ({problem}); it may be truncated, write it again") from None
    return parse(model, data, str(path))


def dump_json(document: Document) -> str:
    """Return a document as indented JSON."""
    return document.model_dump_json(indent=2) + "\n"


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all: to a temporary name, then renamed.

    Raises:
        FormatError: the path is a folder or a device, or cannot be written.
    """
    if path.exists() and not path.is_file():
        raise FormatError(f"{path}: is there and is not a file; choose another path")
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as problem:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise FormatError(f"{path}: cannot be written ({problem.strerror}); choose another path") from None


def _tell(problem: Any, model: type[BaseModel]) -> str:
    """Return one of pydantic's problems as a sentence of ours."""
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location) or "(top)"
    if problem["type"] == "extra_forbidden":
        known = _keys_at(model, location[:-1])
        return f"unknown key {key!r}{nearest(location[-1], known)}" + (f" (known: {', '.join(known)})")
    if problem["type"] == "missing":
        return f"key {key!r} is missing"
    found = repr(problem["input"])
    return f"{key}: {problem['msg']} (found {found if len(found) < 80 else found[:77] + '...'})"


def _keys_at(model: type[BaseModel], location: list[str]) -> list[str]:
    """Return the keys that `model` knows at a nested location, as far as they can be told."""
    here: Any = model
    for part in location:
        field = getattr(here, "model_fields", {}).get(part)
        here = _model_in(field.annotation) if field is not None else here
    return sorted(getattr(here, "model_fields", {}))


def _model_in(annotation: Any) -> Any:
    """Return the model inside an annotation such as ``Training | None`` or ``dict[str, Run]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = [_model_in(part) for part in getattr(annotation, "__args__", ())]
    return next((model for model in inner if model is not None), None)
