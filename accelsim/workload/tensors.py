"""Tensors of a workload: names, shapes, number formats and roles. No values, no addresses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from accelsim.errors import AccelsimError
from accelsim.numerics.formats import FORMATS, Format
from accelsim.workload._words import did_you_mean, listed, shown, whole

if TYPE_CHECKING:
    from accelsim.workload.coding import Coding
    from accelsim.workload.constants import ConstantValues

Shape = tuple[int, ...]


DTYPES = FORMATS
"""Every storage format of tensors: the number formats of the project, by name."""

ROLES = ("input", "weight", "constant", "activation", "cache", "output")
"""What a tensor is to the graph: who fills it and who reads it afterwards.

`input`, `weight` and `constant` exist before the run; `activation` and `output` are written by
exactly one operator; a `cache` exists before the run and operators update it in place.
"""


def dtype_named(name: object, where: str) -> Format:
    """The storage format called `name`.

    Raises:
        AccelsimError: when there is none; the message begins with `where`.
    """
    if isinstance(name, str) and name in DTYPES:
        return DTYPES[name]
    hint = did_you_mean(str(name), DTYPES) if isinstance(name, str) else ""
    raise AccelsimError(f"{where}: unknown dtype {shown(name)}{hint}; accepted: {listed(DTYPES)}")


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a graph: shape in elements, storage format and role.

    `values` says what a `constant` holds (rotary tables, position numbers); None elsewhere.
    `coding` says how a weight is stored where that is not element by element (accelsim.encoding).
    `place_of` names a tensor of the same size that is there before the run and whose place this one
    takes: it is what an update in place leaves there.
    """

    name: str
    shape: Shape
    dtype: str
    role: str
    values: ConstantValues | None = None
    coding: Coding | None = None
    place_of: str = ""

    def __post_init__(self) -> None:
        where = f"tensor '{self.name}'"
        dtype_named(self.dtype, where)
        if self.role not in ROLES:
            raise AccelsimError(f"{where}: unknown role {self.role!r}; accepted: {listed(ROLES)}")
        if not self.shape:
            raise AccelsimError(f"{where}: the shape is empty; accepted: at least one dimension")
        for axis, size in enumerate(self.shape):
            whole(size, f"{where}: dimension {axis}")
        if self.values is not None and self.role != "constant":
            raise AccelsimError(f"{where}: only a constant carries values, this is {self.role!r}")
        if self.coding is not None and (
            self.role not in ("weight", "output") or len(self.shape) < 2
        ):
            raise AccelsimError(f"{where}: only a weight that is a matrix is coded")

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Size in bytes as it is stored, rounded up for formats narrower than a byte."""
        if self.coding is not None:
            return self.coding.nbytes(self.shape, self.dtype)
        return byte_count(self.elements, self.dtype)

    @property
    def room(self) -> int:
        """Bytes that its place in memory must have: of what is coded, however tiles are cut."""
        if self.coding is not None:
            return self.coding.room(self.shape, self.dtype)
        return self.bytes


def same_elements(found: Shape, expected: Shape) -> bool:
    """Whether a tensor of one shape may stand where another is expected.

    Images and the like may stand where rows of their last axis are expected, or a row for each of
    them (or the other way round), and anything where its elements are.
    """
    if found == expected:
        return True
    side = found[-1] == expected[-1] or found[0] == expected[0]
    rows = side and 2 in (len(found), len(expected))
    return math.prod(found) == math.prod(expected) and (rows or len(expected) == 1)


def byte_count(elements: int, dtype: str) -> int:
    """Bytes that `elements` packed elements of `dtype` occupy."""
    return -(-elements * DTYPES[dtype].bits // 8)
