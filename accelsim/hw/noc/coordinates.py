"""Nodes at the YAML edge: "3", "[0, 3]", "[1, 4]" or "[[0, 0], [0, 5]]", by the axes of a grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

from accelsim.errors import AccelsimError
from accelsim.hw.noc.topology import Node


@dataclass(frozen=True)
class Nodes:
    """One node or a list of nodes, each with ``axes`` coordinates."""

    axes: int
    accepted: str

    def parse(self, value: object) -> tuple[Node, ...]:
        """The nodes that a value names.

        Raises:
            AccelsimError: it is not a node or a list of nodes of whole numbers.
        """
        several = isinstance(value, (list, tuple)) and (
            self.axes == 1 or any(isinstance(one, (list, tuple)) for one in value)
        )
        nodes = tuple(map(self._node, value if several else [value]))  # type: ignore[call-overload]
        if not nodes:
            raise AccelsimError(f"an empty list is no place; accepted: {self.accepted}")
        return nodes

    def _node(self, value: object) -> Node:
        parts = tuple(value) if isinstance(value, (list, tuple)) else (value,)
        if len(parts) != self.axes or any(type(part) is not int for part in parts):
            raise AccelsimError(f"{value!r} is not a node; accepted: {self.accepted}")
        return parts

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        from pydantic_core import PydanticCustomError, core_schema

        def read(value: object) -> tuple[Node, ...]:
            try:
                return self.parse(value)
            except AccelsimError as fault:
                raise PydanticCustomError("nodes", "{text}", {"text": str(fault)}) from None

        return core_schema.no_info_plain_validator_function(read)


Positions: TypeAlias = Annotated[tuple[Node, ...], Nodes(1, "a position, or a list of them")]
Coordinates: TypeAlias = Annotated[tuple[Node, ...], Nodes(2, "[row, column], or a list of them")]
