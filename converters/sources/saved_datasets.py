"""Folders that Hugging Face ``datasets`` wrote with ``save_to_disk``: which files they hold, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mixstream.errors import CorpusError
from mixstream.formats import parse_json
from mixstream.streams.place import Place

_STATE, _SPLITS = "state.json", "dataset_dict.json"


def find_saved(folder: Place, names: Sequence[str]) -> dict[str, list[str]]:
    """Return the files of every saved dataset, by the folder that it is in, the paths below `folder`.

    Args:
        folder: what was given.
        names: paths of all files below it.

    Raises:
        CorpusError: several splits at once, an indices mapping, a missing file, or a state.json that tells none.
    """
    there, found = set(names), {}
    for name in names:
        root, _, last = name.rpartition("/")
        if last == _SPLITS and "/" not in root:
            _refuse_splits(folder, name)
        if last == _STATE and "/" not in root and (f"{root}/" if root else "") + "dataset_info.json" in there:
            found[root] = _files(folder, name, there)
    return found


def _refuse_splits(folder: Place, name: str) -> None:
    place = folder / name
    splits = _read(place).get("splits")
    told = ", ".join(map(str, splits)) if isinstance(splits, list) else "none that it names"
    first = splits[0] if isinstance(splits, list) and splits else "train"
    above = place.parent
    raise CorpusError(f"{above}: a saved DatasetDict of the splits {told}; give one of them, such as {above}/{first}")


def _files(folder: Place, name: str, there: set[str]) -> list[str]:
    place = folder / name
    root = name.removesuffix(_STATE)
    state = _read(place)
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise CorpusError(
            f"{place.parent}: a saved dataset with an indices mapping, whose rows are not in their own order; call "
            f"flatten_indices() on it and save it again"
        )
    data = state.get("_data_files")
    files = [entry.get("filename") for entry in data if isinstance(entry, dict)] if isinstance(data, list) else []
    if not files:
        raise CorpusError(f"{place}: names no data files; save the dataset again")
    missing = next((file for file in files if f"{root}{file}" not in there), None)
    if missing is not None:
        raise CorpusError(f"{place}: names {missing!r}, which is not there; copy or save the dataset again")
    return [f"{root}{file}" for file in files]


def _read(place: Place) -> dict[str, Any]:
    content = place.read_bytes()
    remedy = "save the dataset again"
    found = parse_json(content.decode("utf-8", "replace"), str(place), remedy)
    if not isinstance(found, dict):
        raise CorpusError(f"{place}: a JSON {type(found).__name__}, expected an object; {remedy}")
    return found
