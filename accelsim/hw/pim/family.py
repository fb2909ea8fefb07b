"""A family of compute in memory: the commands that it adds to a DRAM channel, and their rules.

A family is data: a DRAM device, commands, constraints in the form of a device's own, the units that
its banks have, and the few rules by which its controller differs from the others. Times are cycles
of the device's command clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal

from accelsim.errors import AccelsimError, unknown
from accelsim.hw.dram.commands import Command, Scope
from accelsim.hw.dram.device import Device


class Reach(IntEnum):
    """Which banks a command acts on, given one of them.

    SAME_BANK is the bank of that number in every bank group of the channel, TWIN_BANKS the bank at
    that place in every pseudo-channel, EVERY_OTHER all even or all odd banks of a rank.
    """

    BANK = 0
    BANK_GROUP = 1
    RANK = 2
    PSEUDO_CHANNEL = 3
    CHANNEL = 4
    SAME_BANK = 5
    TWIN_BANKS = 6
    EVERY_OTHER = 7


class Role(IntEnum):
    """What a command does with rows.

    OPEN and CLOSE drive the row buffers of all banks that they reach, COLUMN works on the open row,
    MOVE needs none (buffers, softmax unit, mode registers). A HEADER tells the controller how large
    the coming tile is, and is ready when no bank holds another row; the device never sees it.
    REFRESH needs closed banks.
    """

    OPEN = 0
    CLOSE = 1
    COLUMN = 2
    MOVE = 3
    HEADER = 4
    REFRESH = 5


RowBuffer = Literal["single", "dual"]
Order = Literal["tree", "lanes", "exact"]
Repeat = Literal["once", "run", "composite"]


@dataclass(frozen=True)
class PimCommand:
    """One command of a family.

    ``number`` is that of logs and kernels; the DRAM's own commands keep theirs. ``second_buffer``:
    it works on the rows that the compute units hold, where a bank has a row buffer for them.
    ``opens`` and ``closes`` are the commands that bring its banks to the row it needs. ``repeat``:
    a stream may ask for k of it at once, which is k commands in a row (run) or one (composite).
    ``latency`` is from its (last) issue to what it gives, ``hold`` keeps every later PIM command
    waiting. ``energy_pj`` is one command's. ``row_bus``: it goes over the bus of row commands.
    """

    name: str
    number: int
    role: Role
    reach: Reach
    second_buffer: bool = False
    opens: int = -1
    closes: int = -1
    repeat: Repeat = "once"
    step: int = 0
    latency: int = 0
    hold: int = 0
    row_bus: bool = False
    needs_closed: bool = False
    """It works on the cells themselves: a program closes its banks before."""
    energy_pj: float = 0.0
    energy: str = ""
    """Where that energy comes from, as the family's file says it: "4 RD", "12.5"."""


@dataclass(frozen=True)
class PimConstraint:
    """As a DRAM's: ``after`` comes no earlier than ``cycles`` after the last ``before``.

    Both touch the same instance of ``scope``. After a command with k repeats it is ``cycles + each
    * max(k, least)``, counted from the first of them where ``each`` is given, else from the last.
    """

    before: int
    after: int
    scope: Scope
    cycles: int
    each: int = 0
    least: int = 0
    window: int = 1
    name: str = ""


@dataclass(frozen=True)
class Deadline:
    """How long a controller believes that a piece of work takes, so that it ends before a refresh.

    A tile: ``close`` for every bank that holds another row, ``open_pair`` for every two opening
    commands but the first pair, ``first`` until the first column, ``slot`` for each column (at
    least ``least``), ``result`` for every result but the first. A vector of the global buffer:
    ``reopen`` if its bank holds another row, ``reopen - close`` if it is closed, and its hold.
    """

    close: int
    open_pair: int
    first: int
    slot: int
    least: int
    result: int
    reopen: int


@dataclass(frozen=True)
class Rules:
    """What the controllers of a family do beyond the order of their PIM queue.

    ``window`` PIM commands are looked at, up to the next barrier; the first that is ready goes (1:
    in order). ``rows_ahead``: rows for those beyond the barrier are opened before it is passed.
    ``concurrent``: reads and writes are served in the slots that PIM commands leave; otherwise none
    is served while a PIM tile is in work. ``deadline``: work that would not end before the next
    refresh waits until after it. ``refresh_together``: all refresh units fall due at once;
    ``refresh_alone``: nothing else is sent while one is owed. ``dual_command``: a row and a column
    command may share a clock. The other numbers are depths of queues.
    """

    window: int = 1
    rows_ahead: bool = True
    concurrent: bool = False
    deadline: Deadline | None = None
    refresh: bool = True
    refresh_together: bool = False
    refresh_alone: bool = False
    dual_command: bool = False
    pim_queue: int = 128
    read_queue: int = 32
    write_buffer: int = 32
    command_queue: int = 128
    hit_cap: int = 4
    guard: int = 10
    """Cycles of slack under which nothing is sent between PIM commands."""


@dataclass(frozen=True)
class Units:
    """The arithmetic beside the banks: ``macs`` of ``operand_bits`` per unit and column command.

    ``banks_per_unit`` share a unit. A row buffer for compute of its own makes ``row_buffer`` dual.
    A sum is formed in ``order`` and in the format ``accumulate``: by an adder ``tree`` over the
    products of a column, whose sums an accumulator takes; by ``lanes``, of which each adds products
    of its own; or ``exact``, as whole numbers. The trees of ``sum_banks`` banks add to one sum.
    Where a unit multiplies columns of a matrix, too, lanes do, in ``column_accumulate`` ("": none
    does), with ``column_products`` at a time each.
    """

    macs: int
    operand_bits: int
    banks_per_unit: int = 1
    row_buffer: RowBuffer = "single"
    accumulate: str = "fp32"
    order: Order = "tree"
    sum_banks: int = 1
    column_accumulate: str = ""
    column_products: int = 1

    @property
    def arithmetic(self) -> str:
        """The name of it in numerics.arithmetic; "" where sums are exact."""
        if self.order == "exact":
            return ""
        group = f"banks{self.sum_banks}-" if self.sum_banks > 1 else ""
        word = {"tree": "tree", "lanes": "macs"}[self.order]
        return f"{group}{word}{self.macs}-{self.accumulate}"

    @property
    def column_arithmetic(self) -> str:
        """The same of products with the columns of a matrix; "" if there are none."""
        if not self.column_accumulate:
            return ""
        together = f"x{self.column_products}" if self.column_products > 1 else ""
        return f"macs{self.macs}{together}-{self.column_accumulate}"


FIGURES: Mapping[str, str] = {
    "inputs_first": "1 if all outputs of some inputs come before the next inputs, 0 if not",
    "crf": "instructions of a unit's microprogram",
    "refresh_after": "clocks since the last refresh when a kernel starts",
    "longest_context": "tokens whose keys every head has room for",
    "piece": "tokens of a unit in a step",
    "level": "where units are: 0 bank, 1 bank group, 2 buffer die",
    "as_published": "1 if streams are those of the authors' generator",
    "stripes": "rows of subarrays of a bank that work at once",
    "stripe_rows": "rows of a subarray",
    "trees": "adder trees of a bank",
    "stacks": "stacks that the channels belong to",
}
"""What programs may ask of a family beyond its units (``numbers``)."""


@dataclass(frozen=True)
class Family:
    """One way to compute in memory, on one device.

    ``programs`` names how operators become command streams (hw/pim/programs). ``commands`` are all
    commands of the channel by number, the DRAM's own first; ``constraints`` those that involve
    commands of the family. ``numbers`` are the further figures that programs ask for.
    """

    name: str
    description: str
    device: Device
    channels: int
    programs: str
    commands: tuple[PimCommand, ...]
    constraints: tuple[PimConstraint, ...]
    units: Units
    rules: Rules
    numbers: Mapping[str, int] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)

    def command(self, name: str) -> PimCommand:
        """A command by its name; AccelsimError if a program sends what the family has not."""
        for one in self.commands:
            if one.name == name:
                return one
        own = [one.name for one in self.commands[len(Command) :]]
        fault = unknown("command", name, own)
        raise AccelsimError(f"programs: {self.programs} of family {self.name}: {fault}")

    def number(self, name: str) -> int:
        """Number of a command by its name."""
        return self.command(name).number

    def figure(self, name: str) -> int:
        """One of ``numbers``; AccelsimError if a program asks for what the family has not."""
        if name not in self.numbers:
            raise AccelsimError(
                f"programs: {self.programs} of family {self.name} need numbers.{name}:"
                f" {FIGURES[name]}"
            )
        return self.numbers[name]

    @property
    def banks(self) -> int:
        """Banks of a channel."""
        return self.device.organization.channel_banks

    def check_rows(self, rows: int) -> None:
        """Raise AccelsimError if an operator needs more rows than a bank has."""
        held = self.device.organization.rows
        if rows > held:
            raise AccelsimError(
                f"the operator needs {rows:,} rows of every bank; accepted: up to {held:,} rows"
            )

    def all_constraints(self) -> tuple[PimConstraint, ...]:
        """Those of the device and those of the family, in one list."""
        own = tuple(
            PimConstraint(
                one.before, one.after, one.scope, one.cycles, window=one.window, name=one.name
            )
            for one in self.device.constraints
        )
        return own + self.constraints


def dram_commands() -> list[PimCommand]:
    """The commands that every channel has, as a family sees them."""
    rows = {
        Command.ACT: (Role.OPEN, Reach.BANK),
        Command.PRE: (Role.CLOSE, Reach.BANK),
        Command.PREAB: (Role.CLOSE, Reach.RANK),
        Command.REFAB: (Role.REFRESH, Reach.RANK),
        Command.REFPB: (Role.REFRESH, Reach.BANK),
    }
    return [
        PimCommand(
            one.name,
            int(one),
            *rows.get(one, (Role.COLUMN, Reach.BANK)),
            opens=Command.ACT if one not in rows else -1,
            closes=Command.PRE if one not in rows else -1,
            row_bus=one in rows,
        )
        for one in Command
    ]
