"""The contract of every resumable iterator, checked by restoring it at every position."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol


class Resumable(Protocol):
    def __iter__(self) -> Iterator[Any]: ...
    def state_dict(self) -> str: ...
    def load_state_dict(self, state: str) -> None: ...


def check_resumable(
    make: Callable[[], Resumable], tell: Callable[[Any], Any], act: Callable[[Resumable, int], None] | None = None
) -> None:
    """Check that an iterator restored at any position goes on as if it had never stopped.

    Args:
        make: returns a fresh iterator.
        tell: turns an item into something that can be compared.
        act: called before item number i is asked for, in every run that gets there: what an outside program
            does to the iterator on its way.
    """
    act = act or (lambda iterator, position: None)
    states: list[str] = []
    items: list[Any] = []
    whole = make()
    iterator = iter(whole)
    while True:
        act(whole, len(items))
        states.append(whole.state_dict())
        try:
            items.append(tell(next(iterator)))
        except StopIteration:
            break
    assert items, "nothing to check"
    for position, state in enumerate(states):
        resumed = make()
        resumed.load_state_dict(state)
        assert resumed.state_dict() == state, f"the state changes by being loaded, at {position}"
        going_on = iter(resumed)
        for later in range(position, len(items)):
            if later > position:
                act(resumed, later)
            assert tell(next(going_on)) == items[later], f"restored at {position}, item {later} differs"
        assert next(going_on, None) is None, f"restored at {position}, it goes on beyond the end"
