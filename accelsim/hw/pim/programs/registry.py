"""How operators become streams of PIM commands, by the name a family gives its programs."""

from __future__ import annotations

from collections.abc import Callable

from accelsim.errors import AccelsimError, unknown
from accelsim.hw.pim.channel.stream import PimStream
from accelsim.hw.pim.family import Family
from accelsim.hw.pim.operators import Operator
from accelsim.hw.pim.programs.attacc import attacc_streams
from accelsim.hw.pim.programs.banks import bank_streams
from accelsim.hw.pim.programs.bit_serial import bit_serial_streams
from accelsim.hw.pim.programs.hbm_pim import hbm_pim_streams
from accelsim.hw.pim.programs.newton import newton_streams

Program = Callable[[Family, Operator], list[tuple[PimStream, int]]]

PROGRAMS: dict[str, Program] = {
    "newton": newton_streams,
    "banks": bank_streams,
    "hbm-pim": hbm_pim_streams,
    "attacc": attacc_streams,
    "bit-serial": bit_serial_streams,
}
"""Streams of the channels that differ, and how many channels have each."""


def streams_of(family: Family, operator: Operator) -> list[tuple[PimStream, int]]:
    """The streams of an operator.

    Raises:
        AccelsimError: programs that do not exist, an operator that the family does not compute, or
            more rows than its banks have.
    """
    if family.programs not in PROGRAMS:
        raise AccelsimError(unknown("programs", family.programs, PROGRAMS))
    return PROGRAMS[family.programs](family, operator)
