"""How the kernels of a multiprocessor read coded weights: where these are expanded, how fast.

multiplied   sparse tensor cores take kept elements and their places as they are (mma.sp,
             wgmma.sp) and pick the other factors: as many multiply-accumulates as are kept
registers    codes pass through shared memory as they are stored; the threads make elements of
             them in front of the tensor cores, once for every row of warps (MARLIN)
scattered    the threads write each kept element to its place in a tile of zeros in shared
             memory, which is then multiplied like a dense one (Flash-LLM): the scatter takes
             turns with the other accesses to shared memory
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from accelsim.encoding.encodings import FAMILIES, encoding
from accelsim.encoding.nm import NofM
from accelsim.errors import AccelsimError

SPARSE_PATTERNS = {32: "nm:1:2", 16: "nm:2:4", 8: "nm:2:4"}
"""What sparse tensor cores multiply, by bits per element (PTX ISA, mma.sp: f16, bf16, int8 and fp8
keep 2 of 4, tf32 keeps 1 of 2)."""


@dataclass(frozen=True)
class Expansion:
    """Where weights are expanded, at how many stored elements per cycle (0: for nothing), and how
    many times faster than dense ones they are multiplied."""

    way: Literal["multiplied", "registers", "scattered"]
    rate: float = 0.0
    speedup: int = 1


@dataclass(frozen=True)
class Weights:
    """Coded weights as a main loop sees them: ``bits`` per element of the dense matrix, of which a
    share ``stored`` is stored."""

    expansion: Expansion
    bits: float
    stored: float


def expansion_of(name: str, bits: int, *, sparse: bool, decode: dict[str, float]) -> Expansion:
    """How weights of ``bits`` bits per element are read that are stored in an encoding.

    Raises:
        AccelsimError: no kernel reads it; says which there are.
    """
    code = encoding(name)
    if sparse and name == SPARSE_PATTERNS.get(bits):
        assert isinstance(code, NofM)
        return Expansion("multiplied", speedup=code.m // code.n)
    rate = decode.get(name) or decode.get(name.split(":")[0])
    if rate:
        return Expansion("scattered" if code.sparse else "registers", rate)
    able = [SPARSE_PATTERNS[bits]] if sparse and bits in SPARSE_PATTERNS else []
    able += [_shown(family) for family in decode]
    raise AccelsimError(
        f"no kernel reads weights of {bits} bits stored as {name}; accepted:"
        f" {', '.join(able) or 'none (tensor_core: sparse, decode)'}"
    )


def reads(name: str, *, sparse: bool, decode: dict[str, float]) -> bool:
    """Whether weights of any width are read that are stored in an encoding."""
    patterns = sparse and name in SPARSE_PATTERNS.values()
    return patterns or bool({name, name.split(":")[0]} & {*decode})


def check_decode(decode: dict[str, float]) -> None:
    """Raise AccelsimError unless every key is an encoding or a family, with a rate."""
    for name, rate in decode.items():
        if name not in _families():
            encoding(name if ":" in name or not name.startswith("int") else f"{name}:col")
        if rate <= 0:
            raise AccelsimError(f"decode.{name} must be positive, not {rate}")


def _families() -> Iterable[str]:
    return {family.shown.split(":")[0] for family in FAMILIES} - {"intB"}


def _shown(name: str) -> str:
    """An example of a family, an encoding as it is."""
    if name.startswith("int") and ":" not in name:
        return f"{name}:g128"
    return "nm:N:M" if name == "nm" else name
