"""Streaming attention against an emulation of DAM's channels, and against what must hold anyway.

``dam_sdpa.csv`` are cycles of scaled-dot-product attention on nodes and bounded channels, from an
emulation of the rules of the Dataflow Abstract Machine (DAM-RS at 7163665, MIT or Apache-2.0, whose
code it does not contain; Zhang et al., ISCA 2024) in Python: a cross-check of this simulator, not a
measurement. There a channel's slot is taken from the send to the receive, so that its depth
includes what is in the sender's pipeline, as here; generators take a cycle for their first element,
which here they do not, and which shows where no controller hides it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from accelsim.api import arch, simulate
from accelsim.errors import AccelsimError
from accelsim.results.claims import Claim, Row, truth, within

CLAIM = Claim(
    name="streaming",
    statement="cycles, FIFO slots and deadlocks of attention on nodes joined by bounded FIFOs",
    source="emulation of DAM's channel rules (DAM-RS 7163665, MIT or Apache-2.0), and closed forms",
    tolerance=0.001,
)

ONE_HEAD = "attention:heads=1,q={q},kv={kv},d=16"
MAPPERS = {
    "naive_unscaled": "stream-naive",
    "naive_scaled": "stream-naive-max",
    "reordered_unscaled": "stream-reordered",
    "memfree_scaled": "stream-running-max",
}
# Cycles from the issue of the last score to the last result: the pipelines on its way.
CONSTANT_MEMORY = {
    "stream-reordered": ("dot", "exp", "product", "divide"),
    "stream-running-max": ("dot", "max", "subtract", "exp", "product", "divide"),
}
LONG_FIFOS = ("stream-naive", "stream-naive-max")
FULL_RATE = 0.99  # elements per cycle, of one
LENGTHS = (64, 128, 256, 512, 1024)
MANY_ROWS = 256  # queries of the longest, whose program would be very long
FEW_ROWS = 4  # enough for a deadlock, which the second row meets at the latest
DEADLOCK = 0  # what a stuck network is counted as, in cycles

# The nodes of the recorded runs where they differ from the architecture's: the scores take as long
# with an exponential behind them as without, and the nodes of the running maximum take a cycle each
# (that of the maximum includes its exponentials, which here are nodes of their own).
SLOW_SCORES = {"stream.dot_latency": 11}
ONE_CYCLE = {f"stream.{step}_latency": 1 for step in ("dot", "product", "exp", "divide")} | {
    "stream.max_latency": 0,
    "stream.subtract_latency": 0,
}


class Outcome(NamedTuple):
    """Cycles and FIFO slots of a run, or DEADLOCK and the least depth that the report names."""

    cycles: int
    slots: int


def rows() -> Iterator[Row]:
    """The recorded runs, then laws at other lengths."""
    yield from _recorded()
    yield from _full_rate()
    yield from _deadlocks()


def _recorded() -> Iterator[Row]:
    for r in truth(__name__, "dam_sdpa.csv"):
        mapper, n, short = MAPPERS[r["kind"]], int(r["N"]), int(r["short_depth"])
        nodes: dict[str, object] = {"stream.fifo_depth": short}
        if r["kind"] == "memfree_scaled":
            # Its depths include the single cycle of each producer's pipeline.
            nodes = {**ONE_CYCLE, "stream.fifo_depth": short - 1}
        elif r["kind"] == "naive_scaled":
            nodes |= SLOW_SCORES
        infinite = r["long_depth"] and int(r["long_depth"]) > n * n
        if r["long_depth"]:
            nodes["stream.long_fifo_depth"] = 2 * n if infinite else int(r["long_depth"])
        nodes["stream.controller"] = int(r["controller_overhead"])
        found = _run(mapper, n, n, nodes)
        depth = "" if not r["long_depth"] else f" long {'inf' if infinite else r['long_depth']}"
        case = f"{mapper} N={n}{depth} controller {r['controller_overhead']}"
        if r["cycles"] == "DEADLOCK":
            yield Row(f"{case} deadlock", DEADLOCK, found.cycles, found.cycles == DEADLOCK)
            continue
        yield within(f"{case} cycles", int(r["cycles"]), found.cycles, CLAIM.tolerance)
        if not infinite and r["kind"] != "memfree_scaled":
            slots = int(r["sum_fifo_slots"])
            yield Row(f"{case} slots", slots, found.slots, found.slots == slots)


def _full_rate() -> Iterator[Row]:
    """An element per cycle from FIFOs whose depth does not depend on the length."""
    nodes = arch("stream-sdpa").units["stream"]
    for mapper, steps in CONSTANT_MEMORY.items():
        least = _run(mapper, LENGTHS[0], LENGTHS[0]).slots
        way = sum(getattr(nodes, f"{step}_latency") for step in steps)
        for n in LENGTHS:
            rows = min(n, MANY_ROWS)
            found, cycles = _run(mapper, rows, n), rows * n - 1 + way
            ok = found.cycles == cycles and rows * n >= FULL_RATE * cycles
            yield Row(f"{mapper} N={n} cycles at full rate", cycles, found.cycles, ok, "law")
            yield Row(f"{mapper} N={n} slots", least, found.slots, found.slots == least, "law")


def _deadlocks() -> Iterator[Row]:
    """A long FIFO must hold a row: one slot less is a deadlock, and the report says what is not."""
    for mapper in LONG_FIFOS:
        for n in LENGTHS:
            stuck = _run(mapper, FEW_ROWS, n, {"stream.long_fifo_depth": n - 1})
            flows = _run(mapper, FEW_ROWS, n, {"stream.long_fifo_depth": n})
            ok = stuck == (DEADLOCK, n) and flows.cycles > FEW_ROWS * n
            yield Row(f"{mapper} N={n} least depth", n, stuck.slots, ok, "law")


def _run(mapper: str, q: int, kv: int, nodes: dict[str, object] | None = None) -> Outcome:
    work = ONE_HEAD.format(q=q, kv=kv)
    try:
        run = simulate("stream-sdpa", work, memory="ideal", mapper=mapper, overrides=nodes)
    except AccelsimError as fault:
        least = re.search(r"deadlock: .* of at least (\d+)$", str(fault))
        if least is None:
            raise
        return Outcome(DEADLOCK, int(least[1]))
    slots = re.search(r"(\d+) FIFO slots", run.operators[0].mapping)
    assert slots is not None
    return Outcome(run.cycles, int(slots[1]))
