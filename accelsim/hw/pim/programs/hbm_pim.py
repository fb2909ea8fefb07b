"""HBM-PIM's commands: modes, microprogram, products, and vectors element by element.

GEMV: an output tile is one register of GRF_B in each lane of each unit. Input tiles of eight
registers of GRF_A go to even and odd banks in turn: the host writes the eight registers, then 64
columns of the matrix, one instruction each, multiply and accumulate. Results go from GRF_B into the
banks.

Element by element: vectors lie in rows of their own, elements of one index in the same column of
the same bank. A tile is eight columns of all even and of all odd banks; while the ones are at work,
a row of the others is opened.

The bank that a command names is an even or an odd one. functional/bank_registers executes the same
steps on bytes, by the microprograms of crf.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from accelsim.hw.pim.channel.stream import PimStream
from accelsim.hw.pim.family import Family
from accelsim.hw.pim.operators import Add, Elementwise, Gemv, Mad, Mul, Operator, Relu, refusal
from accelsim.hw.pim.programs.crf import REGISTERS, Op, elementwise_program
from accelsim.hw.pim.programs.steps import Step, stream_of

ACCEPTED = "gemv:m=,n=, add:n=, mul:n=, relu:n=, mad:n="
EVEN, ODD = 0, 1

COMMANDS = {Op.FILL: "FILL_HAB", Op.ADD: "ADD_HAB", Op.MUL: "MUL_HAB", Op.MAD: "MAD_HAB"}
"""Columns that bring a bank's data to an instruction; MOV with ReLU is MOV_RELU, else ST_GRF."""


def hbm_pim_streams(family: Family, operator: Operator) -> list[tuple[PimStream, int]]:
    """The stream that all pseudo-channels get."""
    return [(stream_of(family, hbm_pim_steps(family, operator)), family.channels)]


def hbm_pim_steps(family: Family, operator: Operator) -> Iterator[Step]:
    """Steps of an operator.

    Raises:
        AccelsimError: an operator that the units have no program for, or too many rows.
    """
    if isinstance(operator, Gemv):
        return gemv_steps(family, operator)
    if isinstance(operator, Add | Mul | Relu | Mad):
        return elementwise_steps(family, operator)
    raise refusal(family.name, operator, ACCEPTED)


def _begin(family: Family, scalars: bool = False) -> Iterator[Step]:
    yield Step("MODE")  # all banks together
    yield Step("WR_CRF", repeat=family.figure("crf") // 4)
    if scalars:
        yield Step("WR_SRF")
    yield Step("MODE")


def gemv_steps(family: Family, operator: Gemv) -> Iterator[Step]:
    """Tiles of eight registers by eight."""
    units = family.banks // family.units.banks_per_unit
    outputs = family.channels * units * REGISTERS
    # Tiles come in pairs, one for the even and one for the odd banks.
    pairs = math.ceil(operator.n / (2 * REGISTERS * family.units.macs))
    tiles = math.ceil(operator.m / outputs)
    per_tile = math.ceil(REGISTERS * REGISTERS / family.device.organization.columns)
    # Results lie in the upper half.
    family.check_rows(2 * tiles * pairs * per_tile)
    return kernel_steps(family, tiles, pairs)


def kernel_steps(family: Family, tiles: int, pairs: int, first_row: int = 0) -> Iterator[Step]:
    """GEMV of a channel's tiles whose matrix begins at row ``first_row`` of its banks."""
    parts = family.device.organization
    yield from _begin(family)
    for tile in range(tiles):
        yield Step("MODE")  # columns drive instructions from here on
        for pair in range(tile * pairs, (tile + 1) * pairs):
            for half in (EVEN, ODD):
                yield Step("WR_GRF", repeat=REGISTERS)
                yield from _matrix(family, pair, half, first_row)
        row = parts.rows // 2 + tile
        yield Step("ST_GRF", row, ODD, repeat=REGISTERS, last=1)
    yield Step("MODE")


def _matrix(family: Family, pair: int, half: int, first_row: int) -> Iterator[Step]:
    """The 64 columns of a tile in the banks of one half."""
    width = family.device.organization.columns
    columns = REGISTERS * REGISTERS
    first = first_row + pair * math.ceil(columns / width)
    for at in range(0, columns, width):
        yield Step("MAC_HAB", first + at // width, half, repeat=min(width, columns - at))


def vector_columns(family: Family, n: int) -> int:
    """Columns of a bank that a vector of n elements takes, whole tiles."""
    held = family.units.macs * family.banks * family.channels
    return REGISTERS * math.ceil(n / (REGISTERS * held))


def vector_rows(family: Family, n: int) -> int:
    """Rows of a bank that it takes."""
    return math.ceil(vector_columns(family, n) / family.device.organization.columns)


def elementwise_steps(family: Family, operator: Elementwise) -> Iterator[Step]:
    """Tiles of eight columns; vectors one behind the other, the result last."""
    family.check_rows(operator.vectors * vector_rows(family, operator.n))
    return _elementwise(family, operator)


def _elementwise(family: Family, operator: Elementwise) -> Iterator[Step]:
    width, rows = family.device.organization.columns, vector_rows(family, operator.n)
    tiles = range(0, vector_columns(family, operator.n), REGISTERS)
    scalars = isinstance(operator, Mad)
    yield from _begin(family, scalars)
    yield Step("MODE")
    halves = [(first, half) for first in tiles for half in (EVEN, ODD)]
    loads = _loads(operator)
    for at, (first, half) in enumerate(halves):
        row, column = divmod(first, width)
        following = halves[at + 1] if at + 1 < len(halves) else None
        for vector, command in enumerate(loads):
            if following and vector == 1:
                yield Step("PRE_HAB", bank=1 - half)
            yield Step(command, vector * rows + row, half, column, REGISTERS)
        if following and len(loads) == 1:
            yield from (Step("PRE_HAB", bank=one) for one in (1 - half, half))
        if following:
            yield Step("ACT_HAB", following[0] // width, 1 - half)
        result = (operator.vectors - 1) * rows + row
        yield Step("ST_GRF", result, half, column, REGISTERS, last=1)
    yield Step("MODE")


def _loads(operator: Elementwise) -> list[str]:
    """Commands that read the vectors of an operator, in order."""
    return [
        "MOV_RELU" if one.op is Op.MOV else COMMANDS[one.op]
        for one in elementwise_program(operator, 1)[: 2 * operator.vectors]
        if one.op is not Op.JUMP and not (one.op is Op.MOV and not one.relu)
    ]
