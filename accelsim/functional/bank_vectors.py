"""AiM's commands for vectors on bytes: products and sums of banks, copies, functions from tables.

Rows and columns are those of the steps (hw/pim/programs/aim) alone. Operands and results are bf16,
rounded once per operation. A function is linear between entries of a table in a row of the bank:
pairs of a value and a slope, for segments of equal width from -8 to 8, of which the first and the
last go on for ever. How AiM's tables are indexed is not published; that they lie in a row, and that
values between their entries are interpolated, is (Kwon et al., ISSCC 2022).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

from accelsim.functional.bank_memory import BankMemory
from accelsim.hw.pim.layouts.layout import BankGrid
from accelsim.hw.pim.programs.steps import Step
from accelsim.numerics.bank_macs import held
from accelsim.numerics.formats import Format

Float32 = npt.NDArray[np.float32]

REACH = 8.0
"""Tables are for values from -REACH to REACH."""


def table_of(
    function: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]],
    grid: BankGrid,
    fmt: Format,
) -> Float32:
    """A row of a bank: (value at the left end, slope) of every segment."""
    segments = grid.row_elements // 2
    ends = np.linspace(-REACH, REACH, segments + 1)
    values = function(ends)
    slopes = np.diff(values) * (segments / (2 * REACH))
    pairs = np.stack([values[:-1], slopes], axis=1).reshape(-1)
    return held(pairs.astype(np.float32), fmt)


class VectorBanks:
    """The banks of all channels in step, the global buffer and registers of the interface.

    ``given`` is what goes into the accumulators, ``results`` what comes out of them; bank groups
    have ``group`` banks.
    """

    def __init__(self, memory: BankMemory, given: Float32 | None = None, group: int = 4) -> None:
        self.memory, self.group, self.results = memory, group, list[Float32]()
        grid = memory.grid
        per_group = grid.channels * grid.banks
        padded = np.zeros(0 if given is None else -(-len(given) // per_group) * per_group)
        if given is not None:
            padded[: len(given)] = given
        self.biases = iter(padded.astype(np.float32).reshape(-1, grid.channels, grid.banks))
        self.accumulators = np.zeros((grid.channels, grid.banks), dtype=np.float32)
        self.buffer: Float32 = np.zeros((grid.channels, 0, grid.column_elements), np.float32)
        self.registers = list[Float32]()

    def run(self, steps: Iterable[Step]) -> None:
        """Execute a program's steps; rows that are opened and closed change nothing."""
        do: dict[str, Callable[[Step], None]] = {
            "EWMUL": self._multiply, "RD": self._read, "EWADD": self._add, "WR": self._write,
            "COPY_BKGB": self._fill, "COPY_GBBK": self._empty, "WR_BIAS": self._bias,
            "AF": self._function, "RD_AF": self._result,
        }  # fmt: skip
        for step in steps:
            if step.command in do:
                do[step.command](step)

    def _elements(self, step: Step) -> Iterable[int]:
        grid = self.memory.grid
        first = step.row * grid.row_elements + step.column * grid.column_elements
        return range(first, first + step.repeat * grid.column_elements, grid.column_elements)

    def _multiply(self, step: Step) -> None:
        for element in self._elements(step):
            banks = self.memory.columns(element, 1)
            product = banks[:, 0 :: self.group] * banks[:, 1 :: self.group]
            third = slice(2, None, self.group)
            self.memory.write(element, third, held(product, self.memory.fmt))

    def _bank(self, step: Step) -> Float32:
        columns = [self.memory.columns(one, 1)[:, step.bank] for one in self._elements(step)]
        return np.stack(columns, axis=1)

    def _put(self, step: Step, values: Float32) -> None:
        for at, element in enumerate(self._elements(step)):
            self.memory.write(element, step.bank, values[:, at])

    def _read(self, step: Step) -> None:
        self.registers.append(self._bank(step))

    def _add(self, step: Step) -> None:
        del step
        a, b = self.registers
        self.registers = [held(a + b, self.memory.fmt)]

    def _write(self, step: Step) -> None:
        self._put(step, self.registers.pop())

    def _fill(self, step: Step) -> None:
        self.buffer = self._bank(step)

    def _empty(self, step: Step) -> None:
        self._put(step, self.buffer)

    def _bias(self, step: Step) -> None:
        del step
        self.accumulators = next(self.biases)

    def _function(self, step: Step) -> None:
        grid, fmt = self.memory.grid, self.memory.fmt
        columns = grid.row_elements // grid.column_elements
        table = self.memory.columns(step.row * grid.row_elements, columns)
        segments, x = grid.row_elements // 2, self.accumulators
        width = 2 * REACH / segments
        place = np.clip(np.nan_to_num((x + REACH) // width), 0, segments - 1).astype(np.int64)
        pairs = table.reshape(*x.shape, segments, 2)
        value, slope = np.moveaxis(
            np.take_along_axis(pairs, place[..., None, None], axis=2)[:, :, 0], -1, 0
        )
        along = x - (place * width - REACH).astype(np.float32)
        self.accumulators = held(value + slope * along, fmt)

    def _result(self, step: Step) -> None:
        del step
        self.results.append(self.accumulators.reshape(-1))
