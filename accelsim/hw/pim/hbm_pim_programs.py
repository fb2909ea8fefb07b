"""GEMV on HBM-PIM: modes, microprogram, and tiles of eight registers by eight.

An output tile is one register of GRF_B in each lane of each unit. Input tiles of eight registers of
GRF_A go to even and odd banks in turn: the host writes the eight registers, then 64 columns of the
matrix, one instruction each, multiply and accumulate. Results go from GRF_B into the banks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from accelsim.errors import AccelsimError
from accelsim.hw.pim.family import Family
from accelsim.hw.pim.operators import Gemv, Operator
from accelsim.hw.pim.stream import NO_ROW, PimStream

Row = tuple[int, int, int, int, int, int]


def hbm_pim_streams(family: Family, operator: Operator) -> list[tuple[PimStream, int]]:
    """The stream that all pseudo-channels get."""
    if not isinstance(operator, Gemv):
        raise AccelsimError(f"{family.name} multiplies a matrix by a vector; accepted: gemv:m=,n=")
    return [(PimStream.of(_rows(family, operator)), family.channels)]


def _rows(family: Family, operator: Gemv) -> Iterator[Row]:
    registers, parts = family.numbers["grf"], family.device.organization
    units = family.banks // family.units.banks_per_unit
    outputs = family.channels * units * registers
    inputs = registers * family.units.macs
    # Tiles come in pairs, one for the even and one for the odd banks.
    pairs = math.ceil(operator.n / (2 * inputs))
    columns = registers * registers
    per_tile = math.ceil(columns / parts.columns)
    # Results lie in the upper half.
    family.check_rows(2 * math.ceil(operator.m / outputs) * pairs * per_tile)

    def one(name: str, row: int = NO_ROW, repeat: int = 1, last: int = 0) -> Row:
        return (family.number(name), row, 0, repeat, last, last)

    yield one("MODE")  # all banks together
    yield one("WR_CRF", repeat=family.numbers["crf"] // 4)
    yield one("MODE")
    for tile in range(math.ceil(operator.m / outputs)):
        yield one("MODE")  # columns drive instructions from here on
        for pair in range(pairs):
            row = (tile * pairs + pair) * per_tile
            for _ in ("even", "odd"):
                yield one("WR_GRF", repeat=registers)
                for n in range(per_tile):
                    left = columns - n * parts.columns
                    yield one("MAC_HAB", row + n, min(parts.columns, left))
        yield one("ST_GRF", parts.rows // 2 + tile, registers, last=1)
    yield one("MODE")
