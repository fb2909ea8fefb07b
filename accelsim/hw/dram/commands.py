"""The commands of a DRAM channel and the parts of it that a timing constraint can hold in.

The numbers are those of command logs and of compiled kernels.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum


class Command(IntEnum):
    """What the command bus carries. RDA and WRA precharge their bank by themselves."""

    ACT = 0
    PRE = 1
    RD = 2
    WR = 3
    REFAB = 4
    REFPB = 5
    PREAB = 6
    RDA = 7
    WRA = 8


class Scope(IntEnum):
    """Where a constraint holds between two commands.

    BANK, BANK_GROUP and RANK hold inside one rank of one pseudo-channel. PSEUDO_CHANNEL is the data
    bus with all ranks on it, CHANNEL the command bus with all pseudo-channels on it. OTHER_RANKS
    holds between different ranks of one pseudo-channel only.
    """

    BANK = 0
    BANK_GROUP = 1
    RANK = 2
    PSEUDO_CHANNEL = 3
    CHANNEL = 4
    OTHER_RANKS = 5


SAME_BANK, SAME_GROUP, SAME_RANK, SAME_BUS, SAME_CHANNEL = range(5)
"""How much two banks share; kernels keep delays by it."""
SCOPES = {
    SAME_BANK: (Scope.CHANNEL, Scope.PSEUDO_CHANNEL, Scope.RANK, Scope.BANK_GROUP, Scope.BANK),
    SAME_GROUP: (Scope.CHANNEL, Scope.PSEUDO_CHANNEL, Scope.RANK, Scope.BANK_GROUP),
    SAME_RANK: (Scope.CHANNEL, Scope.PSEUDO_CHANNEL, Scope.RANK),
    SAME_BUS: (Scope.CHANNEL, Scope.PSEUDO_CHANNEL, Scope.OTHER_RANKS),
    SAME_CHANNEL: (Scope.CHANNEL,),
}
"""Where a constraint holds between two banks that share no more than this."""

READS = (Command.RD, Command.RDA)
WRITES = (Command.WR, Command.WRA)
COLUMN_COMMANDS = (Command.RD, Command.WR, Command.RDA, Command.WRA)
ROW_COMMANDS = (Command.ACT, Command.PRE, Command.PREAB, Command.REFAB, Command.REFPB)

COMMAND_NAMES: Mapping[str, tuple[Command, ...]] = {
    **{command.name: (command,) for command in Command},
    "READ": READS,
    "WRITE": WRITES,
    "COLUMN": COLUMN_COMMANDS,
    "ROW": ROW_COMMANDS,
    "ANY": tuple(Command),
}
"""What a constraint may name: a command, or a set of them."""
