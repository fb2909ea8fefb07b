"""A main memory whose banks compute, laid out for the compiled loop, and what it says after."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from accelsim.engine.traffic import ChannelsActivity, Traffic
from accelsim.hw.dram.commands import Command
from accelsim.hw.dram.energy import energy_pj

if TYPE_CHECKING:
    from accelsim.engine.bank_kernels import Banks
    from accelsim.hw.pim.channel.state import Channels
    from accelsim.hw.pim.family import Family


def banks_of(traffic: Traffic, units: int, instructions: int, nodes: int) -> Banks | None:
    """Idle channels with the commands that will come to them, and room for ``nodes`` runs of
    bursts; None where no such channels are simulated."""
    from accelsim.engine.bank_kernels import Banks
    from accelsim.hw.dram.mapping import LANE
    from accelsim.hw.pim.channel.state import (
        MEMBERS,
        NODE_WORDS,
        NONE,
        SENDER,
        entries,
        idle_channels,
    )
    from accelsim.hw.pim.channel.twin_kernels import OUTCOMES

    memory, given = traffic.pim_dram, traffic.products
    if memory is None:
        return None
    tick = traffic.arch.ticks_of(memory)
    state = idle_channels(
        memory.simulated,
        np.zeros(memory.channels, np.int64) if given is None else given.ends,
        entries(np.zeros((0, 6), np.int64) if given is None else given.table),
        np.zeros((nodes, NODE_WORDS), np.int64),
        senders=instructions,
        refresh=memory.refresh,
    )
    if given is not None:
        state.entry[:, SENDER] = given.sender
    state.word[0, MEMBERS] = memory.channels
    words = state.sent.shape[1] + OUTCOMES + state.rank.shape[1] * state.rank.shape[2]
    return Banks(
        state=state,
        map=memory.address_map.compiled,
        digits=np.zeros(LANE + 1, np.int64),
        nodes=np.zeros(max(nodes, memory.channels), np.int64),
        tick=tick,
        latency=memory.added_cycles * tick,
        touched=np.zeros(memory.channels, np.int64),
        full=np.zeros(1, np.int64),
        product=np.full((instructions, 2), NONE, np.int64) if given is None else given.place,
        leader=np.zeros(memory.channels, np.int64),
        account=np.zeros((memory.channels, words), np.int64),
    )


def banks_activity(traffic: Traffic, banks: Banks) -> tuple[int, ChannelsActivity]:
    """The tick at which the last channel was done, and the account of all."""
    from accelsim.hw.pim.channel import state as s

    memory, k = traffic.pim_dram, banks.state
    assert memory is not None
    family, word = memory.simulated, k.word
    device = family.device
    last = int(word[:, [s.LAST_DATA, s.PIM_FINISH]].max())
    columns = k.sent[:, [Command.RD, Command.WR]].sum(axis=1)
    burst = max(device.timings["burst_cycles"], device.timings["tCCD_S"])
    plain = {command: int(k.sent[:, command].sum()) for command in Command}
    buses = device.organization.pseudo_channels
    ranks = memory.channels * buses * device.organization.ranks
    active = open_cycles(k, last)
    moved = int(columns.sum()) * device.organization.column_bytes
    # A rank stands by once; what an open row adds counts for both of its row buffers.
    energy = energy_pj(device, plain, active, ranks * last - active)["total"]
    account = ChannelsActivity(
        counts={
            **{one.name: k.sent[:, one.number] for one in family.commands},
            "hits": word[:, s.HITS],
            "misses": word[:, s.MISSES],
            "conflicts": word[:, s.CONFLICTS],
        },
        busiest_ticks=int(columns.max(initial=0)) * burst * banks.tick // buses,
        energy_pj=energy + moved * memory.io_pj_per_byte,
        command_pj=_command_pj(family, traffic, k),
    )
    return last * banks.tick, account


def _command_pj(family: Family, traffic: Traffic, k: Channels) -> dict[str, float]:
    """Energy of the commands that only a memory with units has; of composites by column."""
    found = {}
    for one in family.commands:
        count = int(k.sent[:, one.number].sum())
        if one.repeat == "composite" and traffic.products is not None:
            table = traffic.products.table
            count = int(table[table[:, 0] == one.number, 3].sum())
        if count and one.energy_pj:
            found[one.name] = count * one.energy_pj
    return found


def open_cycles(k: Channels, end: int) -> int:
    """Clocks, summed over ranks and row buffers, in which a bank was open up to clock ``end``."""
    from accelsim.hw.pim.channel import state as s

    is_open = k.rank[:, :, :, s.OPEN_BANKS] > 0
    still = np.maximum(0, end - k.rank[:, :, :, s.OPEN_SINCE])
    return int(k.rank[:, :, :, s.OPEN_CYCLES].sum() + still[is_open].sum())
