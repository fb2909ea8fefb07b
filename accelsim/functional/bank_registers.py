"""HBM-PIM's units on bytes: the steps of a program, each column taking the next instruction.

What a program does is said twice, by the commands that a channel gets (hw/pim/programs/hbm_pim) and
by the instructions that the units hold (hw/pim/programs/crf). Here the one meets the other: a
command that is not the one its instruction waits for is a fault, and addresses are those of the
commands alone.
Every operation rounds to fp16, a product before what is added to it.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from accelsim.errors import AccelsimError
from accelsim.functional.bank_memory import BankMemory
from accelsim.hw.pim.programs.crf import BANKS, FILES, REGISTERS, Instruction, Op, Place
from accelsim.hw.pim.programs.hbm_pim import COMMANDS
from accelsim.hw.pim.programs.steps import Step
from accelsim.numerics.bank_macs import held

Float32 = npt.NDArray[np.float32]


class RegisterUnits:
    """The units of all channels in step: registers, scalars and the microprogram.

    ``given`` are the registers that the host writes, [writes, register, lane], in order and again
    from the first; ``scale`` and ``shift`` the scalars of SRF_M and SRF_A.
    """

    def __init__(
        self,
        memory: BankMemory,
        program: tuple[Instruction, ...],
        given: Float32 | None = None,
        scale: float = 1.0,
        shift: float = 0.0,
    ) -> None:
        self.memory, self.program, self.given = memory, program, given
        grid = memory.grid
        shape = (grid.channels, grid.banks // 2, REGISTERS, grid.column_elements)
        self.files = {one: np.zeros(shape, dtype=np.float32) for one in FILES}
        self.scale, self.shift = np.float32(scale), np.float32(shift)
        self.writes = self.at = 0
        self.jumps: dict[int, int] = {}

    def run(self, steps: Iterable[Step]) -> None:
        """Execute a program's steps."""
        for step in steps:
            if step.command == "MODE":
                self._enter()
            elif step.command == "WR_GRF" and self.given is not None:
                self.files[Place.GRF_A][:] = self.given[self.writes % len(self.given)]
                self.writes += 1
            elif (step.command.endswith("_HAB") and step.row < 0) or step.command.startswith("WR_"):
                continue
            elif step.command != "ACT_HAB":
                for column in range(step.column, step.column + step.repeat):
                    self._column(step, column)

    def _enter(self) -> None:
        """A change of mode starts the program anew, with sums of zero."""
        self.at, self.jumps = 0, {}
        self.files[Place.GRF_B][:] = 0

    def _fetch(self) -> Instruction:
        """The next instruction that takes a command."""
        while self.program[self.at].op is Op.JUMP:
            one = self.program[self.at]
            left = self.jumps.setdefault(self.at, one.times)
            if left:
                self.jumps[self.at] = left - 1
                self.at -= one.back
            else:
                del self.jumps[self.at]
                self.at += 1
        found = self.program[self.at]
        if found.op is not Op.EXIT:
            self.at += 1
        return found

    def _column(self, step: Step, column: int) -> None:
        one = self._fetch()
        bank = BANKS[step.bank % 2]
        if command_of(one) != step.command or bank not in (one.result, one.first, one.second):
            raise AccelsimError(f"{step.command} of {bank.value} meets the instruction {one}")
        grid = self.memory.grid
        element = step.row * grid.row_elements + column * grid.column_elements
        half = slice(step.bank % 2, None, 2)
        register = column % REGISTERS
        if one.result is bank and one.first is not None:
            self.memory.write(element, half, self.files[one.first][:, :, register])
            return
        data = self.memory.columns(element, 1)[:, half]
        assert one.result is not None
        file = self.files[one.result]
        if one.op is Op.MAC:
            position = element // grid.column_elements
            sums = file[:, :, position // REGISTERS % REGISTERS]
            product = held(data * self.files[Place.GRF_A][:, :, register], self.memory.fmt)
            sums[:] = held(sums + product, self.memory.fmt)
        else:
            file[:, :, register] = self._result(one, data, file[:, :, register])

    def _result(self, one: Instruction, data: Float32, register: Float32) -> Float32:
        fmt = self.memory.fmt
        with np.errstate(all="ignore"):
            if one.op is Op.ADD:
                return held(register + data, fmt)
            if one.op is Op.MUL:
                return held(register * data, fmt)
            if one.op is Op.MAD:
                return held(held(data * self.scale, fmt) + self.shift, fmt)
        return np.where(data > 0, data, np.float32(0)) if one.relu else data


def command_of(one: Instruction) -> str:
    """The column command that an instruction waits for."""
    if one.op is Op.MAC:
        return "MAC_HAB"
    if one.op is Op.MOV:
        return "MOV_RELU" if one.relu else "ST_GRF"
    return COMMANDS.get(one.op, "")
