"""What a launch comes to in any of the clouds: a script that is short enough, and a place that has room."""

import contextlib
from collections.abc import Callable, Iterable
from typing import TypeVar

from dtf.adapters.cloud_machines import Machine
from dtf.ports.capacity import ProviderError, QuotaExceeded

_Place = TypeVar("_Place")


class NoRoomThere(Exception):
    """The cloud has no room for this kind of machine in this place; another may have some."""


def check_script(script: str, launch_id: str, *, most_bytes: int, cloud: str, setting: str) -> None:
    """Raises ProviderError for a script that the cloud would not take; `setting` is what makes it long."""
    size = len(script.encode())
    if size > most_bytes:
        raise ProviderError(
            f"the script of {launch_id} has {size} bytes and {cloud} takes {most_bytes}; "
            f"shorten {setting}, or have it fetch what it needs"
        )


def first_with_room(make: Callable[[_Place], Machine], places: Iterable[_Place]) -> Machine:
    """What `make` makes in the first place that has room. Raises QuotaExceeded where none has."""
    *others, last = places
    for place in others:
        with contextlib.suppress(NoRoomThere):
            return make(place)
    try:
        return make(last)
    except NoRoomThere as fault:
        raise QuotaExceeded(str(fault)) from fault
