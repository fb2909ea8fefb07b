"""Where the elements of a matrix lie that is multiplied in memory: channel, bank, row and byte.

Programs open rows in this order, and whoever fills the banks or computes their numbers asks here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from accelsim.errors import AccelsimError
from accelsim.hw.pim.family import Family

Ints = NDArray[np.int64]

NEWTON, BANKS = "newton", "banks"


class Places(NamedTuple):
    """Places of elements; ``byte`` is counted within the row."""

    channel: Ints
    bank: Ints
    row: Ints
    byte: Ints


@dataclass(frozen=True)
class MatrixLayout:
    """W[m, n] over the banks of a family: rows of W over banks (and channels), columns of W along
    the rows of a bank, in chunks of such a row.

    In a channel of Newton or NeuPIMs a matrix has one channel, and the groups of a chunk lie behind
    each other; AiM and PIM-GPT spread it over all channels, by the order of their loops.
    """

    family: Family
    m: int
    n: int
    first_row: int = 0

    def __post_init__(self) -> None:
        if self.family.programs not in (NEWTON, BANKS):
            raise AccelsimError(
                f"{self.family.name} says nothing of where a matrix lies; "
                "accepted: newton, neupims, aim, pim-gpt"
            )
        self.family.check_rows(self.first_row + self.rows)

    @property
    def element_bytes(self) -> int:
        return self.family.units.operand_bits // 8

    @cached_property
    def row_elements(self) -> int:
        """Elements of W in one row of a bank."""
        return self.family.device.organization.row_bytes // self.element_bytes

    @property
    def channels(self) -> int:
        return self.family.channels if self.family.programs == BANKS else 1

    @cached_property
    def groups(self) -> int:
        """Rows of W that lie in one bank."""
        return math.ceil(self.m / (self.channels * self.family.banks))

    @cached_property
    def chunks(self) -> int:
        return math.ceil(self.n / self.row_elements)

    @property
    def rows(self) -> int:
        """Rows of every bank."""
        return self.groups * self.chunks

    def places(self, i: Ints, j: Ints) -> Places:
        """Where W[i, j] lies, element by element."""
        banks = self.family.banks
        group, rest = np.divmod(i, self.channels * banks)
        chunk, element = np.divmod(j, self.row_elements)
        chunks_first = self.family.programs == NEWTON or self.family.numbers["inputs_first"] > 0
        row = chunk * self.groups + group if chunks_first else group * self.chunks + chunk
        return Places(
            rest // banks, rest % banks, self.first_row + row, element * self.element_bytes
        )
