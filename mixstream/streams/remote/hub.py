"""Datasets of the Hugging Face hub (``hf://datasets/ORGANISATION/NAME/PATH``): what is there, in which version.

streaming's downloader brings their files, but cannot list them or tell their size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from mixstream.errors import MissingExtraError, RemoteError
from mixstream.streams.remote.downloaders import read_fault
from mixstream.streams.remote.folder import RemoteFolder
from mixstream.streams.remote.retry import Trying

ResultT = TypeVar("ResultT")


def is_hub(place: RemoteFolder) -> bool:
    """Return whether a place is on the hub."""
    return place.root.scheme == "hf"


def list_hub(place: RemoteFolder) -> list[str]:
    """Return the paths of all files below a folder of a dataset, none where there is no such folder.

    Raises:
        RemoteError: there is no such dataset, or the hub refuses, or does not answer for long.
        MissingExtraError: huggingface_hub is not installed.
    """
    name, path = _split(place)
    hub = _hub()

    def collect() -> list[str]:
        try:
            found = hub.HfApi().list_repo_tree(name, path or None, recursive=True, repo_type="dataset")
            return [entry.path for entry in found if isinstance(entry, hub.hf_api.RepoFile)]
        except hub.errors.EntryNotFoundError:
            return []

    skip = len(path) + 1 if path else 0
    return [found[skip:] for found in _persist(place, collect)]


def look_in_hub(place: RemoteFolder) -> tuple[int, str]:
    """Return a file's size in bytes, and ``etag:`` and the hash of its content.

    Raises:
        FileNotFoundError: there is no such file.
        RemoteError: there is no such dataset, or the hub refuses, or does not answer for long.
        MissingExtraError: huggingface_hub is not installed.
    """
    name, path = _split(place)
    hub = _hub()
    found = _persist(place, lambda: hub.HfApi().get_paths_info(name, [path], repo_type="dataset")) if path else []
    if not found or not isinstance(found[0], hub.hf_api.RepoFile):
        raise FileNotFoundError(f"{place}: there is no such object")
    return found[0].size, f"etag:{found[0].lfs.sha256 if found[0].lfs else found[0].blob_id}"


def _split(place: RemoteFolder) -> tuple[str, str]:
    """Return a dataset's name, with its organisation, and the path in it."""
    organisation, _, rest = place.path.partition("/")
    name, _, path = rest.partition("/")
    if place.root.bucket != "datasets" or not name:
        raise RemoteError(f"{place}: names no dataset of the hub; write hf://datasets/ORGANISATION/NAME/PATH")
    return f"{organisation}/{name}", path


def _hub() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.errors
        import huggingface_hub.hf_api
    except ModuleNotFoundError:
        raise MissingExtraError(
            "hf: is read by the package 'huggingface_hub'; install it with pip install huggingface_hub"
        ) from None
    return huggingface_hub


def _persist(place: RemoteFolder, work: Callable[[], ResultT]) -> ResultT:
    hub = _hub()
    trying = Trying(str(place), place.patience)
    while True:
        try:
            return work()
        except hub.errors.RepositoryNotFoundError:
            raise RemoteError(
                f"{place}: the hub has no such dataset, or it is not open to you; look for a misspelt name, or log in "
                f"with huggingface-cli login"
            ) from None
        except Exception as problem:  # noqa: BLE001  it raises classes of several libraries
            trying.failed(read_fault(problem))
