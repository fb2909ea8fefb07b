"""What is captured: sets of cases, each one kernel on seeded operands in a declared order.

A set is recorded or left out as a whole. Its recipe is the digest of its cases, of the generator's
version and of the sources of its kernels; a set of the same recipe is not recorded twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache

from .golden import KEPT, digest
from .inputs import CLASSES, INTEGERS, VERSION, Values

FP8 = ("fp8_e4m3", "fp8_e5m2")
INTEGER_CLASSES: tuple[Values, ...] = ("patterns", "positive", "integers")
GEMM_CLASSES: tuple[Values, ...] = ("narrow", "wide", "cancellation", "positive", "integers")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One launch: ``batch`` products of a[m, k] and b[n, k], in a declared order.

    ``arithmetic`` names the unit family: "mma" and "wgmma" are the tensor core of the GPU by the
    instruction that reaches it, "lanes" its SIMT lanes. ``order`` is a tag of numerics.orders, ""
    where a library decides. ``values`` is the class of operands, or a probe's name.
    """

    name: str
    kernel: str
    a: str
    b: str
    out: str
    m: int
    n: int
    k: int
    values: str
    batch: int = 1
    order: str = "chain"
    arithmetic: str = "wgmma"

    @property
    def count(self) -> int:
        """Elements of the output."""
        return self.batch * self.m * self.n

    @property
    def macs(self) -> int:
        """Multiply-accumulates, of attention those of its scores."""
        return self.count * self.k

    @property
    def cuts(self) -> list[range]:
        """The k of each slice of a split-K order, equal but for the last; of others all of k."""
        word, *counts = self.order.split(":")
        length = self.k
        if word == "split":
            slices, grain = int(counts[0]), int(counts[1])
            grains = -(-self.k // grain)
            length = -(-grains // slices) * grain
        return [range(first, min(first + length, self.k)) for first in range(0, self.k, length)]


@dataclass(frozen=True, kw_only=True)
class CaptureSet:
    """Cases that stand or fall together; ``least`` and ``only`` bound the compute capability.

    ``seconds`` is an estimate of the GPU's time, compilation included.
    """

    name: str
    cases: tuple[Case, ...]
    sources: tuple[str, ...]
    least: str = "8.0"
    only: str = ""
    seconds: float = 1.0

    @property
    def bytes(self) -> int:
        """Of the stored outputs, at most: before they are compressed."""
        return sum(min(case.count, KEPT) * _bytes(case) for case in self.cases)

    @property
    def outputs(self) -> int:
        return sum(case.count for case in self.cases)

    def recipe(self, sources: Mapping[str, str]) -> str:
        """The digest of all that decides what is recorded, given the digests of the sources."""
        used = {name: sources[name] for name in (*self.sources, *SHARED)}
        cases = [asdict(case) for case in self.cases]
        return digest(json.dumps([VERSION, used, cases], sort_keys=True))

    def refusal(self, capability: str) -> str:
        """Why a GPU cannot run it, "" if it can."""
        have = tuple(map(int, capability.split(".")))
        if self.only and capability != self.only:
            return f"needs compute capability {self.only}, this GPU has {capability}"
        if have < tuple(map(int, self.least.split("."))):
            return f"needs compute capability {self.least} or later, this GPU has {capability}"
        return ""


SHARED = ("operands.py", "inputs.py", "devices/cuda.py", "devices/nvcc.py")


def _bytes(case: Case) -> int:
    if case.kernel.startswith("sweep"):
        return 8
    return {"fp16": 2, "bf16": 2, "fp8_e4m3": 1, "fp8_e5m2": 1}.get(case.out, 4)


@cache
def capture_sets(tiles: int = 256, elements: int = 1) -> tuple[CaptureSet, ...]:
    """All sets. ``tiles`` of each instruction case and ``elements`` (a divisor of sizes of matrix
    products) are smaller in tests."""
    return tuple(
        one
        for part in (
            _instructions(tiles), _sparse(tiles), _probes(), _products(elements),
            _vector(elements), _attention(elements), _unary(), _casts(elements),
            _sweeps(elements), _libraries(elements),
        )
        for one in part
    )  # fmt: skip


# --- single instructions

INSTRUCTION_TYPES = (
    ("fp16", "fp32"), ("fp16", "fp16"), ("bf16", "fp32"), ("tf32", "fp32"), ("int8", "int32"),
    *((fmt, out) for fmt in FP8 for out in ("fp32", "fp16")),
)  # fmt: skip


def bits_of(fmt: str) -> int:
    """Bits of an operand in memory."""
    return {"tf32": 32, "fp32": 32, "fp16": 16, "bf16": 16}.get(fmt, 8)


def _classes(fmt: str) -> tuple[Values, ...]:
    return INTEGER_CLASSES if fmt in INTEGERS else CLASSES


def _source(unit: str) -> str:
    """The file of the kernels of single instructions."""
    return f"devices/kernels/{'wgmma' if unit == 'wgmma' else 'instructions'}.cu"


def _instructions(tiles: int) -> Iterator[CaptureSet]:
    for kernel, m, least, only in (("mma", 16, "8.0", ""), ("wgmma", 64, "9.0", "9.0")):
        for fmt, out in INSTRUCTION_TYPES:
            name = f"{kernel}-{fmt}-{out}"
            yield CaptureSet(
                name=name,
                cases=tuple(
                    Case(
                        name=f"{name}-{values}", kernel=kernel, a=fmt, b=fmt, out=out, m=m, n=8,
                        k=256 // bits_of(fmt), values=values, batch=max(1, tiles * 16 // m),
                        arithmetic=kernel,
                    )
                    for values in _classes(fmt)
                ),
                sources=(_source(kernel),),
                least="8.9" if fmt in FP8 and kernel == "mma" else least,
                only=only,
                seconds=0.4,
            )  # fmt: skip


def _sparse(tiles: int) -> Iterator[CaptureSet]:
    types = (("fp16", "fp32"), ("bf16", "fp32"), ("int8", "int32"))
    kinds = [("mma", 16, fmt, out) for fmt, out in types]
    kinds += [("wgmma", 64, fmt, out) for fmt, out in (*types, ("fp8_e4m3", "fp32"))]
    for unit, m, fmt, out in kinds:
        group = unit == "wgmma"
        name = f"sparse-{'wgmma-' if group else ''}{fmt}-{out}"
        yield CaptureSet(
            name=name,
            cases=tuple(
                Case(
                    name=f"{name}-{values}", kernel="sparse", a=fmt, b=fmt, out=out, m=m, n=8,
                    k=512 // bits_of(fmt), values=values, batch=max(1, tiles * 16 // m),
                    arithmetic=unit,
                    order="sparse",
                )
                for values in _classes(fmt)
            ),
            sources=(_source(unit),),
            least="9.0" if group else "8.0",
            only="9.0" if group else "",
            seconds=0.5,
        )  # fmt: skip


PROBES = {"P1": "bf16", "P2": "bf16", "P3": "fp16", "P4": "fp16", "P4b": "bf16"}
"""Corners on which published models differ (operands.probe), by the format of the operands."""


def _probes() -> Iterator[CaptureSet]:
    for kernel, m, only in (("mma", 16, ""), ("wgmma", 64, "9.0")):
        yield CaptureSet(
            name=f"probes-{kernel}",
            cases=tuple(
                Case(
                    name=f"probe-{kernel}-{probe}", kernel=kernel, a=fmt, b=fmt,
                    out="fp16" if fmt == "fp16" else "fp32", m=m, n=8, k=16, values=probe,
                    arithmetic=kernel,
                )
                for probe, fmt in PROBES.items()
            ),
            sources=(_source(kernel),),
            only=only,
            seconds=0.2,
        )  # fmt: skip


# --- matrix products of our own

SHAPES = ((256, 256, 512), (64, 128, 2048), (128, 64, 128))


def _product(
    name: str, kernel: str, fmt: str, shape: tuple[int, int, int], values: str, order: str
) -> Case:
    m, n, k = shape
    return Case(
        name=f"{name}-{m}x{n}x{k}-{values}", kernel=kernel, a=fmt, b=fmt,
        out="int32" if fmt == "int8" else "fp32", m=m, n=n, k=k, values=values, order=order,
    )  # fmt: skip


def _shapes(divisor: int) -> tuple[tuple[int, int, int], ...]:
    # Tiles are 64 x 64 (and 128 of k), so products of tests are no smaller than that.
    return SHAPES if divisor == 1 else ((64, 64, 512),)


def _products(divisor: int) -> Iterator[CaptureSet]:
    for fmt in ("fp16", "bf16", *FP8, "int8"):
        least = "8.9" if fmt in FP8 else "8.0"
        classes = INTEGER_CLASSES if fmt == "int8" else GEMM_CLASSES
        orders = {"gemm": "chain"}
        if fmt in ("fp16", "bf16"):
            orders |= {"splitk": "split:3:64:forward:fp32", "splitk16": f"split:4:64:forward:{fmt}"}
        if fmt in FP8:
            orders |= {"promote": "promote:128"}
        for kernel, order in orders.items():
            name = f"{kernel}-{fmt}"
            yield CaptureSet(
                name=name,
                cases=tuple(
                    _product(name, "gemm", fmt, shape, values, order)
                    for shape in _shapes(divisor)
                    for values in classes
                    # A split whose last slices are empty is no split.
                    if not order.startswith("split") or shape[2] >= 256
                ),
                sources=("devices/triton_kernels.py",),
                least=least,
                only="9.0" if kernel == "promote" else "",
                seconds=6.0,
            )


def _vector(divisor: int) -> Iterator[CaptureSet]:
    for fmt in ("fp16", "bf16", "fp32"):
        name = f"gemv-{fmt}"
        yield CaptureSet(
            name=name,
            cases=tuple(
                Case(
                    name=f"{name}-{rows}x{k}-{values}", kernel="gemv", a=fmt, b=fmt, out="fp32",
                    m=rows // divisor, n=1, k=k, values=values, order="lanes:32",
                    arithmetic="lanes",
                )
                for rows, k in ((4096, 1024), (2048, 777))
                for values in ("narrow", "cancellation", "positive", "integers")
                if k % 2 == 0 or values != "cancellation"
            ),
            sources=("devices/kernels/vector.cu", "devices/kernels/functions.cuh"),
            seconds=0.5,
        )  # fmt: skip


HEAD, ATTENTION_ORDER = 64, "online:64;exp2;sums:fp32:4;divide"


def _attention(divisor: int) -> Iterator[CaptureSet]:
    sizes = ((128, 512), (256, 1024), (64, 128)) if divisor == 1 else ((16, 128),)
    yield CaptureSet(
        name="attention-fp16",
        cases=tuple(
            Case(
                name=f"attention-{rows}x{keys}-{values}", kernel="attention", a="fp16", b="fp16",
                out="fp32", m=rows, n=HEAD, k=keys, values=values, order=ATTENTION_ORDER,
                arithmetic="mma",
            )
            for rows, keys in sizes
            for values in ("narrow", "positive", "cancellation", "integers")
        ),
        sources=("devices/kernels/attention.cu",),
        seconds=2.0,
    )  # fmt: skip


# --- tables and casts

UNARY = {
    "ex2": (0xC0000000 - (1 << 23) + 1, 1 << 23), "rcp": (0x3F800000, 1 << 23),
    "rsqrt": (0x3F800000, 1 << 24), "lg2": (0x3F800000, 1 << 23), "tanh": (0x3F000000, 1 << 23),
}  # fmt: skip
"""First word and number of the words of each special function that are recorded.

ex2 takes all of [-2, -1) (as words, from the one after -1), rcp and lg2 [1, 2), rsqrt [1, 4).
"""


def _unary() -> Iterator[CaptureSet]:
    for name, (_, count) in UNARY.items():
        yield CaptureSet(
            name=f"unary-{name}",
            cases=(
                Case(
                    name=f"unary-{name}", kernel="unary", a="fp32", b="fp32", out="fp32", m=count,
                    n=1, k=1, values=name, order="", arithmetic="function",
                ),
            ),
            sources=("devices/kernels/vector.cu", "devices/kernels/functions.cuh"),
            seconds=1.0,
        )  # fmt: skip


CASTS = {"fp16": "fp16", "bf16": "bf16", "fp8_e4m3": "fp8_e4m3_saturate",
         "fp8_e5m2": "fp8_e5m2_saturate"}  # fmt: skip


def _casts(divisor: int) -> Iterator[CaptureSet]:
    for out in CASTS:
        yield CaptureSet(
            name=f"cast-{out}",
            cases=tuple(
                Case(
                    name=f"cast-{out}-{values}", kernel="cast", a="fp32", b="fp32", out=out,
                    m=65536 // divisor, n=1, k=1, values=values, order="", arithmetic="function",
                )
                for values in ("patterns", "narrow", "subnormal", f"near-{out}")
            ),
            sources=("devices/kernels/vector.cu", "devices/kernels/functions.cuh"),
            least="8.9" if out in FP8 else "8.0",
            seconds=0.3,
        )  # fmt: skip


BLOCKS, BLOCK_WORDS = 1024, 1 << 22


def _sweeps(divisor: int) -> Iterator[CaptureSet]:
    """Special functions and casts of all 2^32 words, as digests of blocks of 2^22 (sweeps)."""
    functions = [("sweep_unary", name, "fp32") for name in UNARY]
    functions += [("sweep_cast", f"cast_{CASTS[out]}", out) for out in CASTS]
    for kernel, values, out in functions:
        name = f"sweep-{out if kernel == 'sweep_cast' else values}"
        yield CaptureSet(
            name=name,
            cases=(
                Case(
                    name=name, kernel=kernel, a="fp32", b="fp32", out=out,
                    m=BLOCKS if divisor == 1 else 16, n=1,
                    k=BLOCK_WORDS if divisor == 1 else 256, values=values, order="",
                    arithmetic="function",
                ),
            ),
            sources=("devices/kernels/sweep.cu", "devices/kernels/functions.cuh"),
            least="8.9" if out in FP8 else "8.0",
            seconds=1.0,
        )  # fmt: skip


# --- libraries

LIBRARY_SHAPES = (
    (128, 128, 512), (128, 256, 1024), (64, 256, 4096), (16, 128, 8192), (256, 256, 256),
)  # fmt: skip


def _library(name: str, kernel: str, fmt: str, out: str, shape: tuple[int, int, int]) -> Iterator[
    Case
]:  # fmt: skip
    m, n, k = shape
    classes = INTEGER_CLASSES if fmt == "int8" else ("narrow", "positive", "integers")
    for values in classes:
        if values == "positive" and out == "fp16":
            continue  # it would be Inf
        yield Case(
            name=f"{name}-{m}x{n}x{k}-{values}", kernel=kernel, a=fmt, b=fmt, out=out, m=m, n=n,
            k=k, values=values, order="",
        )  # fmt: skip


LIBRARIES = (
    ("cublaslt", "fp16", "fp32", "8.0"), ("cublaslt", "bf16", "fp32", "8.0"),
    ("cublaslt", "fp16", "fp16", "8.0"), ("cublaslt", "bf16", "bf16", "8.0"),
    ("scaled_mm", "fp8_e4m3", "fp32", "8.9"), ("scaled_mm_fast", "fp8_e4m3", "fp32", "8.9"),
    ("int_mm", "int8", "int32", "8.0"), ("cusparselt", "fp16", "fp16", "8.0"),
    ("cusparselt", "bf16", "bf16", "8.0"), ("cusparselt", "int8", "int32", "8.0"),
)  # fmt: skip


def _libraries(divisor: int) -> Iterator[CaptureSet]:
    shapes = LIBRARY_SHAPES if divisor == 1 else ((64, 64, 256),)
    for kernel, fmt, out, least in LIBRARIES:
        name = f"{kernel}-{fmt}-{out}"
        yield CaptureSet(
            name=name,
            cases=tuple(
                case
                for shape in shapes
                # torch._int_mm and sparse int8 ask for more rows than 16.
                if kernel not in ("int_mm", "cusparselt") or shape[0] > 16
                for case in _library(name, kernel, fmt, out, shape)
            ),
            sources=("devices/libraries.py",),
            least=least,
            seconds=3.0,
        )
    yield CaptureSet(
        name="sdpa-fp16",
        cases=tuple(
            Case(
                name=f"sdpa-{rows}x{keys}-{values}", kernel="sdpa", a="fp16", b="fp16", out="fp16",
                m=rows, n=HEAD, k=keys, values=values, order="", arithmetic="mma",
            )
            for rows, keys in (((128, 512), (256, 1024)) if divisor == 1 else ((16, 128),))
            for values in ("narrow", "positive", "integers")
        ),
        sources=("devices/libraries.py",),
        seconds=3.0,
    )  # fmt: skip


PROBE_NAMES = tuple(PROBES)
ARITHMETIC = {
    ("8.0", "mma"): "ampere-mma", ("8.6", "mma"): "ampere-mma", ("8.7", "mma"): "ampere-mma",
    ("8.9", "mma"): "ada-mma", ("9.0", "mma"): "hopper-mma", ("9.0", "wgmma"): "hopper-wgmma",
    ("10.0", "mma"): "blackwell-mma", ("10.0", "wgmma"): "blackwell-tcgen05",
}  # fmt: skip


def arithmetic_of(capability: str, case: Case) -> str:
    """The name in numerics.arithmetic of the unit that a case runs on; "" if none is modelled."""
    if case.arithmetic == "lanes":
        return "lanes32-fp32"
    # A compiler's matrix products take mma.sync where there is no instruction of warp groups.
    family = case.arithmetic
    if family == "wgmma" and not capability.startswith(("9.", "10.")):
        family = "mma"
    return ARITHMETIC.get((capability, family), "")
