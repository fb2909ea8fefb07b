"""The grid of latencies: which kernels are timed, of what sizes, and which of them may be fitted.

A case is a kernel of certain sizes and formats; a row is a case with a cold or a warm L2 cache. A
hash of its name sends each case, with both its rows, to "fit" (a quarter of them: constants may be
calibrated on them) or to "test" (they only judge), and sets the order in which they are timed, so
that neither depends on what was measured and neighbours in time are no neighbours in the grid.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Cache = Literal["cold", "warm"]
Sizes = tuple[tuple[str, int], ...]

SEED = "accelsim latency grid 1"
FIT_SHARE = 0.25
WARM_BYTES = 40 << 20
"""Cases that touch more than this have no warm row: it would not stay in an L2 cache."""

BYTES = {"bf16": 2, "fp16": 2, "fp8_e4m3": 1, "int8": 1, "tf32": 4}
NEEDS = {"bf16": (8, 0), "fp16": (7, 0), "fp8_e4m3": (8, 9), "int8": (7, 5), "tf32": (8, 0)}
"""Compute capability from which on tensor cores multiply a format."""
OUT_BYTES = {"fp8_e4m3": 2, "int8": 4, "tf32": 4}
"""Bytes of a result where they are not those of an operand: products of fp8 are kept in bf16."""

LINEAR = ((4096, 4096), (11008, 4096), (4096, 11008), (14336, 4096), (4096, 14336), (8192, 8192))
"""(n, k) of linear layers of Llama models of 7, 8 and 70 billion parameters."""
VECTOR = (
    *((1024, 1024), (2048, 2048), (16384, 16384), (1024, 4096), (6144, 4096), (32000, 4096)),
    *((3584, 3584), (18944, 3584), (5120, 5120), (13824, 5120), (5120, 13824), (28672, 8192)),
)
"""More of them, of other models too, for single tokens."""


@dataclass(frozen=True)
class Case:
    """A kernel to time; ``block`` is the part of the grid in whose mean error it counts."""

    block: str
    kind: str
    dtype: str
    sizes: Sizes
    library: str = ""

    @property
    def name(self) -> str:
        """All that tells it from other cases, e.g. "gemm bf16 m=1 n=2 k=3"."""
        sizes = (f"{key}={value}" for key, value in self.sizes)
        return " ".join(part for part in (self.kind, self.library, self.dtype, *sizes) if part)

    @property
    def size(self) -> dict[str, int]:
        """Its sizes by name."""
        return dict(self.sizes)

    @property
    def needs(self) -> tuple[int, int]:
        """The compute capability that it needs at least."""
        beside = {"sparse": (8, 0), "attention": (8, 0)}.get(self.kind, (0, 0))
        return max(NEEDS[self.dtype], beside)

    @property
    def split(self) -> str:
        """ "fit" or "test", by the hash of its name."""
        return "fit" if _hash(f"split {self.name}") < FIT_SHARE else "test"

    @property
    def macs(self) -> int:
        """Multiply-accumulates, those of zeros left out."""
        s = self.size
        if self.kind in ("gemm", "sparse"):
            return s["m"] * s["n"] * s["k"] // (2 if self.kind == "sparse" else 1)
        if self.kind == "attention":
            pairs = s["q"] * s["kv"] // (2 if s["causal"] else 1)
            return 2 * s["batch"] * s["heads"] * pairs * s["d"]
        return 0

    @property
    def footprint(self) -> int:
        """Bytes of all that it reads and writes, each once."""
        s, each = self.size, BYTES[self.dtype]
        if self.kind in ("gemm", "sparse"):
            # Half the weights, and two bits for each that is kept.
            weights = s["n"] * s["k"] * each
            if self.kind == "sparse":
                weights = weights // 2 + s["n"] * s["k"] // 8
            return (
                s["m"] * s["k"] * each + weights + s["m"] * s["n"] * OUT_BYTES.get(self.dtype, each)
            )
        if self.kind == "attention":
            rows = 2 * s["q"] * s["heads"] + 2 * s["kv"] * s["kv_heads"]
            return s["batch"] * rows * s["d"] * each
        if self.kind == "copy":
            return 2 * s["bytes"]
        return (3 if self.kind == "add" else 2) * s["rows"] * s["cols"] * each


@dataclass(frozen=True)
class Row:
    """A case with a cold or a warm L2 cache."""

    case: Case
    cache: Cache

    @property
    def name(self) -> str:
        return f"{self.case.name} {self.cache}"


def grid() -> tuple[Row, ...]:
    """All rows, in the order in which they are timed."""
    cases = sorted(dict.fromkeys(_cases()), key=lambda case: _hash(f"order {case.name}"))
    return tuple(row for case in cases for row in _rows(case))


def digest(rows: tuple[Row, ...]) -> str:
    """sha256 of the names of rows, their blocks and splits."""
    lines = (f"{row.name};{row.case.block};{row.case.split}" for row in rows)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _rows(case: Case) -> Iterator[Row]:
    yield Row(case, "cold")
    if case.footprint <= WARM_BYTES:
        yield Row(case, "warm")


def _hash(text: str) -> float:
    """A number in [0, 1) that follows from a text."""
    return int.from_bytes(hashlib.sha256(f"{SEED} {text}".encode()).digest()[:8], "big") / 2**64


def _cases() -> Iterator[Case]:
    yield from _gemms()
    yield from _flat_gemms()
    yield from _prefill()
    yield from _decode()
    yield from _sparse()
    yield from _rowwise()
    yield from _copies()


def _gemm(block: str, dtype: str, m: int, n: int, k: int, kind: str = "gemm") -> Case:
    return Case(block, kind, dtype, (("m", m), ("n", n), ("k", k)))


def _gemms() -> Iterator[Case]:
    """Squares, linear layers at many tokens, waves of CTAs, and a sweep of k."""
    for size in (512, 1024, 2048, 4096, 8192):
        for dtype in BYTES:
            yield _gemm("gemm", dtype, size, size, size)
    for n, k in LINEAR:
        for m in (128, 256, 512, 1024, 2048, 4096, 8192):
            yield _gemm("gemm", "bf16", m, n, k)
        for m in (256, 1024, 4096):
            yield _gemm("gemm", "fp8_e4m3", m, n, k)
            yield _gemm("gemm", "int8", m, n, k)
    for m in range(128, 4225, 256):
        yield _gemm("gemm", "bf16", m, 4096, 4096)
    for exponent in range(6, 15):
        yield _gemm("gemm", "bf16", 2048, 2048, 1 << exponent)


def _flat_gemms() -> Iterator[Case]:
    """Few tokens: products that take the time of their weights. int8 begins at 32 rows."""
    for n, k in LINEAR:
        for m in (2, 4, 8, 16, 32, 64):
            yield _gemm("gemm", "bf16", m, n, k)
        for m in (16, 64):
            yield _gemm("gemm", "fp8_e4m3", m, n, k)
        yield _gemm("gemm", "int8", 64, n, k)
    for n, k in (*LINEAR, *VECTOR):
        for dtype in ("bf16", "fp16", "fp8_e4m3"):
            yield _gemm("gemv", dtype, 1, n, k)


def _attention(
    heads: int, kv_heads: int, d: int, q: int, kv: int, batch: int, causal: bool, library: str
) -> Case:
    sizes = (
        *(("heads", heads), ("kv_heads", kv_heads), ("d", d), ("q", q), ("kv", kv)),
        *(("batch", batch), ("causal", int(causal))),
    )
    # FlashAttention 2 does not use Hopper's own instructions; its prefill is told, not judged.
    block = "prefill with mma.sync" if library == "flash" and q > 1 else "attention"
    return Case(block, "attention", "bf16", sizes, library)


def _prefill() -> Iterator[Case]:
    for length in (512, 1024, 2048, 4096, 8192):
        for causal in (True, False):
            yield _attention(16, 16, 64, length, length, 1, causal, "cudnn")
            if causal or length < 8192:
                yield _attention(32, 8, 128, length, length, 1, causal, "cudnn")
    for length in (1024, 4096):
        for causal in (True, False):
            yield _attention(32, 32, 128, length, length, 1, causal, "cudnn")
            yield _attention(32, 8, 128, length, length, 1, causal, "flash")


def _decode() -> Iterator[Case]:
    """One query per sequence; keys shared by 1, 4 or 8 query heads; at most 1 GiB of cache."""
    for kv in (1024, 2048, 4096, 8192, 16384, 65536, 131072):
        for batch in (1, 4, 16, 64):
            for kv_heads in (32, 8, 4):
                case = _attention(32, kv_heads, 128, 1, kv, batch, False, "flash")
                if case.footprint <= 1.1 * 2**30:
                    yield case


def _sparse() -> Iterator[Case]:
    """Weights with two zeros in every four; their dense twins are among the others."""
    for n, k in ((4096, 4096), (14336, 4096), (8192, 8192)):
        for m in (64, 256, 1024, 4096):
            for dtype in ("bf16", "fp16", "int8", "fp8_e4m3"):
                yield _gemm("2:4", dtype, m, n, k, "sparse")


def _rowwise() -> Iterator[Case]:
    for rows in (256, 1024, 4096, 16384, 65536):
        for cols in (1024, 2048, 4096, 8192, 16384):
            for kind in ("softmax", "layernorm", "rmsnorm"):
                if rows * cols <= 1 << 28:
                    yield Case("softmax and norms", kind, "bf16", (("rows", rows), ("cols", cols)))
    for kind in ("add", "silu", "gelu_tanh", "relu"):
        for rows in (256, 1024, 4096, 16384, 65536):
            yield Case("elementwise", kind, "bf16", (("rows", rows), ("cols", 4096)))
    for cols in (64, 1024, 16384, 131072):
        yield Case("elementwise", "relu", "bf16", (("rows", 1), ("cols", cols)))


def _copies() -> Iterator[Case]:
    for exponent in range(12, 33):
        yield Case("copy", "copy", "bf16", (("bytes", 1 << exponent),))


def cold_sets(footprint: int, l2_bytes: int, launches: int) -> int:
    """Sets of operands to go round, so that none is still in the L2 cache when its turn comes."""
    return max(1, min(launches, math.ceil(2 * l2_bytes / footprint) + 1))
