"""A machine of nothing but DMA queues, scratchpads and a network, and programs of bare copies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from accelsim.arch import Architecture
from accelsim.engine.bind import BoundProgram, bind
from accelsim.hw.dma import Dma
from accelsim.hw.memory import MainMemory
from accelsim.hw.noc import Network
from accelsim.hw.sram import Sram
from accelsim.numerics.formats import FORMATS
from accelsim.program.builder import Builder
from accelsim.program.storage import View
from accelsim.program.table import OperatorInfo, StorageInfo

INT8 = FORMATS["int8"]
ENDLESS = 10**15  # bytes per second that limit nothing


def machine(cores: int, network: Network, *, width: int = 0, latency: int = 0) -> Architecture:
    """``cores`` cores of one DMA queue around a memory that is never the limit; 1 GHz."""
    return Architecture.build(
        name="bare",
        clock="1 GHz",
        cores=cores,
        units={"dma": Dma()},
        memories={
            "hbm": MainMemory(capacity=2**40, bandwidth=ENDLESS, latency=latency * 1e-9),
            "spad": Sram(capacity=2**20, width=width),
        },
        networks={"net": network},
    )


class Copy(NamedTuple):
    """``nbytes`` from core ``source`` to core ``target``, asked for by ``queue``; -1 is the hbm."""

    queue: int
    source: int
    target: int
    nbytes: int
    base: int = 0


class Bench:
    """Builds programs of copies; every copy has its own places."""

    def __init__(self, arch: Architecture) -> None:
        self.arch = arch
        self.build = Builder(arch.unit_slots(), arch.address_spaces())
        self.build.begin_operator(OperatorInfo("copies", "copy", "hand", 0))
        self.used = [0] * len(self.build.spaces)

    def window(self, core: int, nbytes: int, role: str, base: int = -1) -> View:
        """Fresh bytes in a core's scratchpad, or of the main memory (core -1) at an address."""
        space = core + 1
        if base < 0:
            base = self.used[space]
            self.used[space] += nbytes
        name = f"s{space}@{base}"
        form = ("", ()) if role == "buffer" else ("int8", (1, nbytes))
        info = StorageInfo(name, space, base, nbytes, role, form[1], form[0])
        return self.build.storage(info).view(1, nbytes, INT8)

    def copy(self, one: Copy) -> None:
        """One load, store, or move between scratchpads."""
        source = self.window(one.source, one.nbytes, "input", one.base if one.source < 0 else -1)
        target = self.window(one.target, one.nbytes, "buffer", one.base if one.target < 0 else -1)
        move = self.build.store if one.target < 0 else self.build.load
        move(one.queue, target, source)

    def multicast(self, queue: int, cores: Sequence[int], nbytes: int, base: int = 0) -> None:
        """``nbytes`` of the main memory to several cores."""
        targets = [self.window(core, nbytes, "buffer") for core in cores]
        self.build.multicast(queue, targets, self.window(-1, nbytes, "input", base))

    def bound(self) -> BoundProgram:
        """The program with its times."""
        return bind(self.build.finish(), self.arch)


def copies(arch: Architecture, *moves: Copy) -> BoundProgram:
    """A program of copies, bound."""
    bench = Bench(arch)
    for move in moves:
        bench.copy(move)
    return bench.bound()
