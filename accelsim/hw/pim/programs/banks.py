"""A matrix beside the banks, all banks of a channel in step: GEMV on AiM and PIM-GPT.

Rows of the matrix go over channels and banks, columns along the rows of a bank. A product of one
row of every bank with the vector in the global buffer is one activation, a run of columns and one
result; a longer vector comes in chunks of a row. Two orders: outputs first, the chunks of the
vector written anew for each group of outputs and the sum kept in the units; or inputs first, every
chunk written once and partial sums read out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from accelsim.hw.pim.channel.stream import NO_ROW, PimStream
from accelsim.hw.pim.family import Family
from accelsim.hw.pim.operators import Attend, Elementwise, Gemv, Logit, Operator, refusal
from accelsim.hw.pim.programs.aim import aim_steps
from accelsim.hw.pim.programs.bank_attention import attend_rows, logit_rows
from accelsim.hw.pim.programs.steps import stream_of

Row = tuple[int, int, int, int, int, int]


def bank_streams(family: Family, operator: Operator) -> list[tuple[PimStream, int]]:
    """Streams of channels that differ, each with the number of channels that have it."""
    if isinstance(operator, Logit | Attend) and family.figure("inputs_first"):
        return [(_checked(family, _attention_rows(family, operator)), family.channels)]
    own = any(one.name == "EWMUL" for one in family.commands)
    if own and isinstance(operator, Elementwise):
        steps = aim_steps(family, operator)
        if steps is not None:
            return [(stream_of(family, steps), family.channels)]
    if not isinstance(operator, Gemv):
        accepted = "logit, attend" if family.figure("inputs_first") else "ewmul, ewadd, af, copy"
        raise refusal(family.name, operator, f"gemv, {accepted}")
    family.check_rows(_groups(family, operator) * len(_chunks(family, operator)))
    rows = _inputs_first if family.figure("inputs_first") else _outputs_first
    return [(PimStream.of(rows(family, operator)), family.channels)]


def _attention_rows(family: Family, operator: Logit | Attend) -> Iterator[Row]:
    if isinstance(operator, Logit):
        return logit_rows(family, operator)
    return attend_rows(family, operator)


def _checked(family: Family, rows: Iterator[Row]) -> PimStream:
    """A stream whose rows a bank has."""
    stream = PimStream.of(rows)
    family.check_rows(int(stream.row.max()) + 1)
    return stream


def _chunks(family: Family, operator: Gemv) -> list[int]:
    """Columns of each chunk of the vector."""
    parts = family.device.organization
    columns = math.ceil(operator.n * family.units.operand_bits / 8 / parts.column_bytes)
    return [min(parts.columns, columns - first) for first in range(0, columns, parts.columns)]


def _groups(family: Family, operator: Gemv) -> int:
    """Groups of outputs: one row of the matrix in every bank of every channel."""
    return math.ceil(operator.m / (family.channels * family.banks))


def _product(family: Family, row: int, columns: int) -> Iterator[Row]:
    yield (family.number("MAC_ABK"), row, 0, columns, 0, 0)
    yield (family.number("PRE_ABK"), NO_ROW, 0, 1, 0, 0)


def _outputs_first(family: Family, operator: Gemv) -> Iterator[Row]:
    chunks = _chunks(family, operator)
    for group in range(_groups(family, operator)):
        yield (family.number("WR_BIAS"), NO_ROW, 0, 1, 0, 0)
        for at, columns in enumerate(chunks):
            yield (family.number("WR_GB"), NO_ROW, 0, columns, 0, 0)
            yield from _product(family, group * len(chunks) + at, columns)
        yield (family.number("RD_MAC"), NO_ROW, 0, 1, 1, 1)


def _inputs_first(family: Family, operator: Gemv) -> Iterator[Row]:
    groups = _groups(family, operator)
    for at, columns in enumerate(_chunks(family, operator)):
        yield (family.number("WR_GB"), NO_ROW, 0, columns, 0, 0)
        for group in range(groups):
            yield from _product(family, at * groups + group, columns)
            yield (family.number("RD_MAC"), NO_ROW, 0, 1, 1, 1)
