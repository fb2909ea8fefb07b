"""Channels whose banks compute and that follow a leader are what they would be alone.

Most windows go to all channels alike; now and then one of them gets a burst or a product of its
own, before, amid and after pauses, so that channels part and join all the time.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_engine_bank_reference import FAMILIES, memory_of, with_family
from test_engine_memory_reference import by_hand
from test_engine_reference import outcome
from test_pim_reference import often_refreshed, tiles

from accelsim import engine
from accelsim.engine import TimedProgram, reference
from accelsim.engine.traffic import Products
from accelsim.hw.dram.commands import Command
from accelsim.hw.pim.catalog import family
from accelsim.hw.pim.channel.reach import touches
from accelsim.hw.pim.channel.reference_banks import Sent
from accelsim.hw.pim.family import Family, Role
from accelsim.hw.pim.memory import PimDram

MANY = settings(  # the first example compiles
    deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=12
)
RD, WR = int(Command.RD), int(Command.WR)


class Rounds:
    """Instructions of one unit for transfers and one unit per channel for products."""

    def __init__(self, found: Family, memory: PimDram, seed: int) -> None:
        self.found, self.memory = found, memory
        self.draw = np.random.default_rng(seed)
        self.map = memory.address_map.compiled
        self.burst = self.map.column_bytes
        self.sweep = self.map.sweep * self.burst
        self.windows: list[list[tuple[int, ...]]] = []
        self.pauses: list[int] = []
        self.units: list[int] = []
        self.tables: list[list[np.ndarray]] = [[] for _ in range(memory.channels)]
        self.senders: list[list[int]] = [[] for _ in range(memory.channels)]

    def send(self, pause: int, *windows: tuple[int, ...], unit: int = 0) -> None:
        self.windows.append(list(windows))
        self.pauses.append(pause)
        self.units.append(unit)

    def sweeps(self) -> None:
        """Whole turns over the channels, or rows of a window that take turns, after a pause."""
        run, pause = self.map.run * self.burst, int(self.draw.choice([0, 20, 400]))
        some: list[tuple[int, ...]] = []
        for _ in range(self.draw.integers(1, 4)):
            base, write = int(self.draw.integers(0, 6)) * self.sweep, int(self.draw.random() < 0.4)
            if self.draw.random() < 0.6:
                some.append((base, 1, n := int(self.draw.integers(1, 3)) * self.sweep, n, write))
            else:
                rows = int(self.draw.integers(1, 3 * self.memory.channels))
                first = int(self.draw.integers(0, self.map.run)) * self.burst
                wide = int(self.draw.integers(1, run - first + 1))
                start = base + first + run * int(self.draw.integers(0, 2))
                some.append((start, rows, wide, run, write))
        self.send(pause, *some)

    def bursts(self) -> None:
        """One for every channel in the same place, or in another one of a channel, or later."""
        place, write = int(self.draw.integers(0, 4)) * self.sweep, int(self.draw.random() < 0.5)
        odd, what = (
            self.draw.integers(0, self.memory.channels),
            self.draw.choice(["nothing", "row", "kind", "late", "twice"]),
        )
        run = self.map.run * self.burst
        for c in range(self.memory.channels):
            base, kind = place + c * run, write
            if c == odd:
                base += 4 * self.sweep * (what == "row")
                kind ^= what == "kind"
                self.send(30 * (what == "late"))
                if what == "twice":
                    self.send(0, (base, 1, self.burst, self.burst, kind))
            self.send(0, (base, 1, self.burst, self.burst, kind))

    def products(self) -> None:
        """Products in one channel or the same in all of them."""
        table = tiles(self.found, self.draw, int(self.draw.integers(1, 3))).table()
        all_of_them = range(self.memory.channels)
        some = all_of_them if self.draw.random() < 0.5 else self.draw.choice(all_of_them, 1)
        for c in some:
            self.tables[int(c)].append(table)
            self.senders[int(c)] += [len(self.units)] * len(table)
            self.send(0, unit=1 + int(c))

    def program(self) -> TimedProgram:
        units = 1 + self.memory.channels
        timed = by_hand(self.windows, self.memory, units=units, occupancy=self.pauses)
        place, ends, total = np.full((len(self.units), 2), -1, np.int64), [], 0
        for c, tables in enumerate(self.tables):
            mine = [i for i, unit in enumerate(self.units) if unit == 1 + c]
            for i, table in zip(mine, tables, strict=True):
                total += len(table)
                place[i] = c, total
            ends.append(total)
        table = np.concatenate([np.zeros((0, 6), np.int64), *chain(*self.tables)])
        senders = np.array([*chain(*self.senders)], np.int64)
        traffic = replace(
            timed.traffic, products=Products(place, table, senders, np.array(ends, np.int64))
        )
        return replace(timed, unit=np.array(self.units, np.int32), traffic=traffic)


def hits(log: list[Sent], found: Family) -> int:
    """Columns of the host that met their row open, and not for the first time, by a log."""
    fresh, count = set(range(found.banks)), 0
    for one in log:
        command = found.commands[one.command]
        if one.command in (RD, WR):
            count += one.bank not in fresh
            fresh.discard(one.bank)
        elif command.role in (Role.OPEN, Role.CLOSE) and not command.second_buffer:
            fresh.update(
                np.flatnonzero(touches(found.device.organization, command.reach)[one.bank]).tolist()
            )
    return count


@given(st.data(), st.sampled_from(FAMILIES), st.integers(0, 2**32 - 1), st.integers(2, 4))
@MANY
def test_channels_part_and_join(data, name, seed, channels):
    found = often_refreshed(
        name,
        data.draw(st.sampled_from([1200, 3900])),
        read_queue=data.draw(st.sampled_from([4, 32])),
        write_buffer=data.draw(st.sampled_from([3, 32])),
        command_queue=data.draw(st.sampled_from([2, 128])),
    )
    kinds = data.draw(
        st.lists(
            st.sampled_from(["sweeps", "sweeps", "bursts", "products"]), min_size=2, max_size=6
        )
    )
    with with_family(found):
        rounds = Rounds(found, memory_of(channels), seed)
        for kind in kinds:
            getattr(rounds, kind)()
        timed = rounds.program()
        machine, schedule = reference.simulate(timed), engine.run(timed)
    for mine, theirs in (
        (schedule.start, machine.start),
        (schedule.finish, machine.finish),
        (schedule.order, machine.order),
    ):
        assert mine.tolist() == theirs
    logs = [one.channel.log for one in machine.channels.channels]
    told = [Counter(one.command for one in log) for log in logs]
    counts = schedule.activity.channels.counts
    for one in found.commands:
        if one.repeat != "run":
            assert counts[one.name].tolist() == [of[one.number] for of in told], one.name
    assert counts["hits"].tolist() == [hits(log, found) for log in logs]


READ, WRITE = 0, 1
FOUR = range(4)
APART = {  # bursts (bank, row, write) of channel 0 and of channel 1; what all get after a pause
    "open row": ([(0, 1, READ)], [(0, 2, READ)], [(0, 1)]),
    "hits of a row": ([(0, 0, READ)] * 3, [(0, 0, READ)], [(0, 1), (0, 0)]),
    "later": ([(0, 0, READ)], None, [(0, 1)]),
    "writes": ([(0, 0, WRITE)], None, [(0, 0)]),
    "activations": ([(k, 1, READ) for k in FOUR], None, [(k, 2) for k in FOUR]),
}


@pytest.mark.parametrize("what", APART)
def test_channels_that_differ_in_one_thing_stay_apart(what: str) -> None:
    """After every pause from none to one after which both are ready for everything."""
    first, second, after = APART[what]
    found = family("neupims")
    # A window of activations that outlasts a row's cycle is seen when all else is ready.
    stretch = 8 if what == "activations" else 1
    slow = tuple(
        replace(of, cycles=of.cycles * (stretch if of.window > 1 else 1))
        for of in found.device.constraints
    )
    with with_family(replace(found, device=replace(found.device, constraints=slow))):
        memory = memory_of(2, refresh=False)
        burst, sweep = (
            n * memory.address_map.column_bytes for n in (1, memory.address_map.compiled.sweep)
        )
        banks = memory.simulated.banks

        def at(bank: int, row: int) -> int:
            return (row * banks + bank) * sweep

        def one(channel: int, bank: int, row: int, write: int) -> list[tuple[int, ...]]:
            return [(at(bank, row) + channel * sweep // 2, 1, burst, burst, write)]

        some = [one(0, *of) for of in first] + [one(1, *of) for of in second or first]
        sweeps = [(at(*of), 1, sweep, sweep, READ) for of in after]
        late = 12 if what == "activations" else 0 if second else 11
        for pause in range(0, 240, 6):
            pauses = [150, *[0] * (len(first) - 1), *[late] * (len(some) - len(first)), pause, 0]
            both = [(at(0, 0), 1, sweep, sweep, READ)]
            timed = by_hand([both, *some, sweeps], memory, occupancy=pauses[: len(some) + 2])
            assert outcome(engine.run, timed) == outcome(reference.run, timed)
