"""Multicasts as rows of a program: who waits, what the verifier says, what the numbers do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from noc_machine import Bench, machine

from accelsim.engine.bind import bind
from accelsim.engine.merge import run
from accelsim.functional.execute import execute
from accelsim.functional.memory import Memory, poisoned
from accelsim.hw.noc.kinds import Mesh
from accelsim.program.listing import listing
from accelsim.program.opcodes import Opcode
from accelsim.program.table import COLUMN, Ints, Program
from accelsim.program.verify import violations

MESH = Mesh(rows=2, cols=3, bandwidth=10**9, multicast=True)
CORES, BYTES = 5, 40


def program(turns: int = 2) -> tuple[Bench, Program]:
    """``turns`` pieces go to three scratchpads each; every core stores what it received."""
    bench = Bench(machine(CORES, MESH))
    build = bench.build
    cores = (1, 3, 4)
    buffers = [bench.window(core, BYTES, "buffer") for core in cores]
    source = bench.window(-1, BYTES * turns, "input")
    for turn in range(turns):
        for buffer in buffers:
            buffer.storage.renew()
        piece = source[:, turn * BYTES : (turn + 1) * BYTES]
        build.multicast(0, buffers, piece)
        for core, buffer in zip(cores, buffers, strict=True):
            build.store(core, bench.window(-1, BYTES, "scratch"), buffer)
    return bench, build.finish()


def rows_of(made: Program, opcode: Opcode) -> list[int]:
    return np.flatnonzero(made.column("opcode") == opcode).tolist()


def changed(made: Program, change: Callable[[Ints], None]) -> Program:
    rows = made.instructions.copy()
    change(rows)
    return replace(made, instructions=rows)


def test_the_multicast_waits_for_all_destinations_and_deliveries_for_nothing() -> None:
    _, made = program()
    first, second = rows_of(made, Opcode.MULTICAST)
    assert made.column("opcode")[first : first + 3].tolist() == [6, 7, 7]
    assert made.column("k")[first : first + 3].tolist() == [3, 0, 0]
    assert (made.deps[first : first + 3] == -1).all()
    # The second turn waits for the stores of the first, one on each core, before it moves.
    assert sorted(made.deps[second].tolist()) == rows_of(made, Opcode.STORE)[:3]
    assert (made.deps[second + 1 : second + 3] == -1).all()
    # Every store waits for its own delivery.
    stores = rows_of(made, Opcode.STORE)
    assert [made.deps[i].max() for i in stores] == [
        *range(first, first + 3),
        *range(second, second + 3),
    ]
    assert violations(made) == []
    assert "MULTICAST" in listing(made)


def test_one_destination_is_a_load() -> None:
    bench = Bench(machine(CORES, MESH))
    (row,) = bench.build.multicast(
        2, [bench.window(2, BYTES, "buffer")], bench.window(-1, BYTES, "input")
    )
    assert bench.build.finish().column("opcode")[row] == Opcode.LOAD


def test_more_waits_than_columns_become_joins() -> None:
    bench = Bench(machine(CORES, MESH))
    buffers = [bench.window(core, BYTES, "buffer") for core in range(CORES)]
    for core, buffer in enumerate(buffers):
        bench.build.fill(core, buffer, 1.0)
        bench.build.store(core, bench.window(-1, BYTES, "scratch"), buffer)
        buffer.storage.renew()
    bench.build.multicast(0, buffers, bench.window(-1, BYTES, "input"))
    made = bench.build.finish()
    (head,) = rows_of(made, Opcode.MULTICAST)
    (join,) = rows_of(made, Opcode.JOIN)
    waits = {*made.deps[join].tolist(), *made.deps[head].tolist()} - {-1}
    assert waits == {*rows_of(made, Opcode.STORE)} - {1}  # its own queue keeps order anyway
    assert violations(made) == []


def _set(place: int, column: str, value: int) -> Callable[[Ints], None]:
    """Change a column of the second multicast (0) or of its deliveries (1, 2)."""

    def change(rows: Ints) -> None:
        head = np.flatnonzero(rows[:, COLUMN["opcode"]] == Opcode.MULTICAST)[1]
        rows[head + place, COLUMN[column]] = value

    return change


def _repeat(rows: Ints) -> None:
    """The last delivery goes where the multicast itself goes."""
    head = np.flatnonzero(rows[:, COLUMN["opcode"]] == Opcode.MULTICAST)[1]
    rows[head + 2, COLUMN["dst"]] = rows[head, COLUMN["dst"]]


FAULTS = [
    (_set(0, "k", 2), "has 2 destinations with the DELIVERs behind it, not k=2", 2),
    (_set(0, "k", 4), "has 3 destinations with the DELIVERs behind it, not k=4", 1),
    (_set(0, "opcode", Opcode.LOAD), "follows no MULTICAST that it belongs to", 2),
    (_set(1, "opcode", Opcode.LOAD), "has 2 destinations with the DELIVERs behind it, not k=3", 1),
    (_set(1, "dep1", 0), "waits, which its MULTICAST must do", 1),
    (_set(1, "unit", 1), "differs from the MULTICAST that it belongs to", 1),
    (_set(2, "src0", 1), "differs from the MULTICAST that it belongs to", 1),
    (_repeat, "delivers to core1.spad again", 1),
]


@pytest.mark.parametrize(("change", "text", "count"), FAULTS)
def test_what_does_not_belong_together_is_refused(
    change: Callable[[Ints], None], text: str, count: int
) -> None:
    _, made = program()
    found = violations(changed(made, change))
    if text.startswith("has 2 destinations") and count == 2:  # k=2: the third one is lost
        assert [v.kind for v in found] == ["structure"]
        assert "follows no MULTICAST" in str(found[0])
        return
    assert len(found) == count, found
    assert text in str(found[0])
    assert {v.kind for v in found} == {"structure"}


@pytest.mark.parametrize("order", ["program", "clock"])
def test_all_destinations_receive_the_numbers(order: str) -> None:
    bench, made = program()
    memory = Memory(made)
    source = next(s for s, info in enumerate(made.storages) if info.role == "input")
    sent = memory.storage(source).view(np.int8)
    sent[...] = np.arange(BYTES * 2).reshape(sent.shape)
    schedule = run(bind(made, bench.arch).timed) if order == "clock" else None
    execute(made, [bench.arch.units[u.unit] for u in made.units], memory, schedule)
    kept = [s for s, info in enumerate(made.storages) if info.role == "scratch"]
    found = [memory.storage(s).view(np.int8).reshape(-1).tolist() for s in kept]
    assert found == [list(range(BYTES))] * 3 + [list(range(BYTES, 2 * BYTES))] * 3


def test_while_it_moves_every_destination_is_garbage() -> None:
    """A reader in another core that starts in the middle of the transfer sees poison."""
    bench = Bench(machine(CORES, MESH))
    build = bench.build
    buffers = [bench.window(core, BYTES, "buffer") for core in (1, 3)]
    source = bench.window(-1, BYTES, "input")
    build.fill(3, buffers[1], 7.0)
    build.fill(3, bench.window(3, BYTES, "buffer"), 0.0)
    build.multicast(0, buffers, source)
    keep = bench.window(-1, BYTES, "scratch")
    build.store(3, keep, buffers[1])
    made = build.finish()

    def forget(rows: Ints) -> None:
        stores = rows[:, COLUMN["opcode"]] == Opcode.STORE
        rows[stores, COLUMN["dep0"] : COLUMN["dep0"] + 3] = -1

    racy = changed(made, forget)
    assert "without waiting" in str(violations(racy)[0])
    schedule = run(bind(racy, bench.arch).timed)
    store, head = rows_of(racy, Opcode.STORE)[0], rows_of(racy, Opcode.MULTICAST)[0]
    assert schedule.start[head] <= schedule.start[store] < schedule.finish[head]
    memory = Memory(racy)
    memory.storage(made.operands[made.instructions[head, COLUMN["src0"]], 0])[...] = 1
    execute(racy, [bench.arch.units[u.unit] for u in racy.units], memory, schedule)
    got = memory.storage(racy.operands[racy.instructions[store, COLUMN["dst"]], 0])
    assert (got == poisoned(np.dtype(np.int8))).all()
