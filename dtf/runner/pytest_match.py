"""Which collected item a case means, though two collections may not agree to the letter.

A case is named by its node id and its position in the controller's collection. Node ids can occur
twice (then the position among equals decides) and can differ from one collection to the next (a
clock or an address in a parameter's id): then the item at the same position is meant, if as many
were collected and it is the same function. What still has no item is reported in one line.
"""

from collections.abc import Sequence


class CaseIndex:
    """The items collected here, by node id and by position."""

    def __init__(self, node_ids: Sequence[str]) -> None:
        self._node_ids = node_ids
        self._first: dict[str, int] = {}
        self._others: dict[str, list[int]] = {}
        for index, node_id in enumerate(node_ids):
            if self._first.setdefault(node_id, index) != index:
                self._others.setdefault(node_id, []).append(index)

    def find(self, name: str, position: int, controllers_count: int) -> int | None:
        """Index of the item meant; None if there is none."""
        first = self._first.get(name)
        if first is not None:
            return first if name not in self._others else self._among_equals(name, first, position)
        if controllers_count == len(self._node_ids) and 0 <= position < controllers_count:
            here = self._node_ids[position]
            if without_parameters(here) == without_parameters(name) != name:
                return position
        return None

    def _among_equals(self, name: str, first: int, position: int) -> int:
        candidates = [first, *self._others[name]]
        return position if position in candidates else first

    def explain_missing(self, name: str, controllers_count: int) -> str:
        """Why `find` gave nothing, in one line."""
        here, there = len(self._node_ids), controllers_count
        function = without_parameters(name)
        twins = sum(without_parameters(node_id) == function for node_id in self._node_ids)
        if here != there:
            return (
                f"the worker collected {here} cases and the controller {there}; {name} is not among the worker's"
                f" ({twins} of the same function are): make the collection the same in every process"
            )
        return (
            f"the worker did not collect {name} and has something else in its place ({twins} of the same function"
            " elsewhere): make its parameters' ids and order the same in every process"
        )


def without_parameters(node_id: str) -> str:
    """A node id up to the bracket of its parameters."""
    return node_id.partition("[")[0]
