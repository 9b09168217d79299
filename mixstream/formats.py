"""The frame of every file that stands between two stages: versioned, checked, written whole.

docs/formats.md describes the files; the room that owns a file declares its model as a `FileModel`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from mixstream.errors import FormatError, nearest

FileModelT = TypeVar("FileModelT", bound="FileModel")


class FileModel(BaseModel):
    """Part of a file format: immutable, typed, without unknown keys, NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def parse_json(text: str, where: str, remedy: str) -> Any:
    """Return what a JSON text says; `remedy` tells what to do where it says nothing.

    Raises:
        FormatError: it is not JSON, or an object has a key twice (of two, the last would win without a word).
    """
    try:
        return json.loads(text, object_pairs_hook=_each_once)
    except _KeyTwiceError as problem:
        raise FormatError(f"{where}: {problem}; keep one of the two") from None
    except (ValueError, RecursionError) as problem:
        raise FormatError(f"{where}: not JSON ({problem}); it may be truncated, {remedy}") from None


def parse(
    model: type[FileModelT], data: Any, where: str, remedy: str = "", error: type[FormatError] = FormatError
) -> FileModelT:
    """Return `data` as a `model`.

    Args:
        model: the format.
        data: what was read, of plain dicts, lists, strings and numbers.
        where: the file's name, for the message.
        remedy: what to do where it does not fit.
        error: the class of error to raise.

    Raises:
        FormatError: naming every key that is wrong, what was found there, and for an unknown key the
            nearest known one.
    """
    try:
        # Through JSON, where types are strict and yet a list is a tuple.
        text = json.dumps(data, default=str)
    except (TypeError, ValueError, RecursionError) as problem:
        raise error(f"{where}: cannot be told as JSON ({problem})") from None
    try:
        return model.model_validate_json(text, strict=True)
    except ValidationError as problem:
        told = _tell_all(problem.errors(include_url=False), json.loads(text), model)
        raise error(f"{where}: " + "; ".join([*told, remedy] if remedy else told)) from None


def load_json(path: Path, remedy: str) -> Any:
    """Return what a JSON file says; `remedy` tells what to do where there is none that can be read.

    Raises:
        FormatError: the file is missing, cannot be read, or is not JSON.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise FormatError(f"{path}: no such file; {remedy}") from None
    except (OSError, UnicodeDecodeError) as problem:
        raise FormatError(f"{path}: cannot be read ({problem}); {remedy}") from None
    return parse_json(text, str(path), remedy)


def load_yaml(path: Path, remedy: str, error: type[FormatError] = FormatError) -> Any:
    """Return what a YAML file says; `remedy` tells what to do where there is none that can be read.

    Raises:
        FormatError: of class `error`; the file is missing, cannot be read, or is not YAML.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _OnceLoader)
    except FileNotFoundError:
        raise error(f"{path}: no such file; {remedy}") from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as problem:
        raise error(f"{path}: not a YAML file ({' '.join(str(problem).split())}); {remedy}") from None


class _OnceLoader(yaml.SafeLoader):
    """YAML in which a key may stand once (of two, the last would win without a word) and 2e-3 is a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        own = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        twice = {key for key in map(str, own) if list(map(str, own)).count(key) > 1}
        if twice:
            raise yaml.YAMLError(f"key {min(twice)!r} stands twice{node.start_mark}")
        return super().construct_mapping(node, deep=deep)


_OnceLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_json(path: Path, model: type[FileModelT], remedy: str) -> FileModelT:
    """Read a JSON file as a `model`; `remedy` tells what to do where that fails.

    Raises:
        FormatError: the file is missing, is not JSON, or does not fit `model`.
    """
    return parse(model, load_json(path, remedy), str(path), remedy)


def dump_json(content: FileModel) -> str:
    """Return a file's content as indented JSON."""
    return content.model_dump_json(indent=2) + "\n"


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that it is there whole or not at all: to a temporary name, then renamed.

    Text is written as UTF-8, with the line ends that it has.

    Raises:
        FormatError: the path is a folder or a device, or cannot be written.
    """
    if path.exists() and not path.is_file():
        raise FormatError(f"{path}: is there and is not a file; choose another path")
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as problem:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise FormatError(f"{path}: cannot be written ({problem.strerror}); choose another path") from None


class _KeyTwiceError(ValueError):
    pass


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _KeyTwiceError(f"key {next(key for key in keys if keys.count(key) > 1)!r} stands twice")
    return found


def _tell_all(problems: Sequence[Any], data: Any, model: type[BaseModel]) -> list[str]:
    """Return pydantic's problems as sentences of ours.

    Of a value that may be of several types pydantic tells what each of them misses; where one of them got
    further in than the others, that is the one that was meant.
    """
    placed = [(_place(problem, data), problem) for problem in problems]
    deepest = [
        (place, problem)
        for place, problem in placed
        if not any(len(other) > len(place) and other[: len(place)] == place != () for other, _ in placed)
    ]
    return list(dict.fromkeys(_tell(problem, place, model) for place, problem in deepest))


def _place(problem: Any, data: Any) -> tuple[str, ...]:
    """Return the keys that lead to a problem; pydantic puts names of types between them."""
    here, place = data, []
    for part in problem["loc"]:
        known = part in here if isinstance(here, dict) else isinstance(here, list) and part in range(len(here))
        if known:
            here = here[part]
        elif problem["type"] != "missing" or part is not problem["loc"][-1]:
            continue
        place.append(str(part))
    return tuple(place)


def _tell(problem: Any, place: tuple[str, ...], model: type[BaseModel]) -> str:
    """Return one of pydantic's problems as a sentence of ours."""
    key = ".".join(place) or "(top)"
    if problem["type"] == "extra_forbidden":
        known = _keys_at(model, place[:-1], problem["loc"])
        return f"unknown key {key!r}{nearest(place[-1], known)}" + (f" (known: {', '.join(known)})")
    if problem["type"] == "missing":
        return f"key {key!r} is missing"
    found = repr(problem["input"])
    told = problem["msg"].removeprefix("Value error, ")
    return f"{key}: {told} (found {found if len(found) < 80 else found[:77] + '...'})"


def _keys_at(model: type[BaseModel], place: Sequence[str], loc: Sequence[Any]) -> list[str]:
    """Return the keys that `model` knows at a nested place, as far as they can be told.

    Args:
        model: the format.
        place: the keys that lead there.
        loc: pydantic's names for the place, with the tags of those models that a key tells apart.
    """
    here: Any = model
    for part in place:
        field = getattr(here, "model_fields", {}).get(part)
        here = _model_in(field.annotation, loc) if field is not None else here
    return sorted(getattr(here, "model_fields", {}))


def _model_in(annotation: Any, loc: Sequence[Any]) -> Any:
    """Return the model inside an annotation such as ``Training | None`` or ``dict[str, Run]``, the one meant."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = [_model_in(part, loc) for part in getattr(annotation, "__args__", ())]
    models = [model for model in inner if model is not None]
    return next((model for model in models if _tags(model) & set(loc)), models[0] if models else None)


def _tags(model: type[BaseModel]) -> set[Any]:
    """Return the values of the keys that tell a model apart from others."""
    literals = (field.annotation for field in model.model_fields.values() if field.is_required())
    return {value for literal in literals if get_origin(literal) is Literal for value in get_args(literal)}
