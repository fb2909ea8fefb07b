"""Decoder: expands coded tiles between memory and the buffers that arrays compute from.

A tile arrives as it is stored, pruned or quantised (accelsim.encoding), in a staging buffer; a
DECODE reads its bytes there and writes the dense tile. The unit takes coded bytes and puts out
elements, each at a finite rate, and the slower of the two decides:

    cycles = max(coded bytes / coded_bytes_per_cycle, elements / elements_per_cycle)

and the result may be used ``latency`` cycles later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from accelsim.encoding.encodings import encoding
from accelsim.errors import AccelsimError
from accelsim.hw.block import Cost, Unit, Work, block, require
from accelsim.program.opcodes import Opcode
from accelsim.quantities import Cycles, Picojoules, PicojoulesPerByte


@block("decoder")
@dataclass(frozen=True, kw_only=True)
class Decoder(Unit):
    """Decompressor of ``elements_per_cycle`` dense elements and ``coded_bytes_per_cycle``.

    ``staging`` names the memory where coded tiles wait, ``target`` the one it writes dense tiles
    to. ``encodings`` are the ones that it knows, by name or family ("nm"); () all of them.
    """

    opcodes: ClassVar[frozenset[Opcode]] = frozenset({Opcode.DECODE})

    staging: str
    target: str
    elements_per_cycle: int
    coded_bytes_per_cycle: int
    latency: Cycles = 8
    encodings: tuple[str, ...] = ()
    element_pj: Picojoules = 0.0
    coded_pj_per_byte: PicojoulesPerByte = 0.0

    def check(self) -> None:
        super().check()
        for name in ("elements_per_cycle", "coded_bytes_per_cycle"):
            rate = getattr(self, name)
            require(rate >= 1, f"{name} must be at least 1, not {rate}")
        require(self.latency >= 0, f"latency must not be negative, not {self.latency}")
        for name in self.encodings:
            if ":" in name or name in ("bitmap", "tiled-csl"):
                encoding(name)
            elif name != "nm" and not name.startswith("int"):
                raise AccelsimError(f"encodings names {name!r}; `accelsim list encodings` has them")

    def memories(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.staging, self.target)))

    def energy_pj_per_action(self) -> dict[str, float]:
        return {"decoded": self.element_pj, "coded_byte": self.coded_pj_per_byte}

    def decodes(self, encoding: str) -> bool:
        return not self.encodings or bool({encoding, encoding.split(":")[0]} & {*self.encodings})

    def cost(self, work: Work) -> Cost:
        elements = work.m * work.n
        out = -(-elements // self.elements_per_cycle)
        cycles = np.maximum(-(-work.coded_bytes // self.coded_bytes_per_cycle), out)
        actions = {"decoded": elements, "coded_byte": work.coded_bytes}
        return Cost(cycles, cycles + self.latency, actions)
