"""Rules of accumulation: how one kind of unit forms a matrix product, bit by bit.

A rule multiplies carriers, ``a[m, k] @ b[k, n]`` onto ``acc[m, n]`` or nothing, and says what its
roundings can do to a result (``Levels``), so that an error bound follows from it.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from accelsim.numerics import accumulate
from accelsim.numerics.formats import FORMATS, Format
from accelsim.numerics.tensor_core import Bits, DotStep, Parts, parts_of

Array = npt.NDArray[Any]

FP32 = FORMATS["fp32"]


@dataclass(frozen=True)
class Levels:
    """Roundings on the way of any product to the result, at most.

    ``additions`` are those to nearest in the accumulator's precision, ``steps`` the fused ones, and
    ``rests`` how often a partial sum is stored in a narrower format.
    """

    additions: int = 0
    steps: int = 0
    rests: int = 0

    def __or__(self, other: Levels) -> Levels:
        mine, others = (self.additions, self.steps, self.rests), astuple(other)
        return Levels(*map(max, zip(mine, others, strict=True)))


@dataclass(frozen=True)
class StepError:
    """What one fused step may add to an error: ``relative`` to the sum of all |terms| so far.

    |error of a step| <= K 2^-F M + 2^-p |d|, with M the largest term (which itself is exact) and p
    the fraction bits delivered (half of that to nearest). Subnormal operands count with the
    exponent of the smallest normal number, so M is no smaller than that makes it: ``absolute`` is
    what that costs for each unit of the largest factor, ``floor`` what the smallest c and the
    subnormals of the result do.
    """

    relative: float
    absolute: float
    floor: float


class Rule(Protocol):
    """How products of certain formats are formed."""

    @property
    def tag(self) -> str:
        """What the unit does, in one word for reports."""

    @property
    def adders(self) -> str:
        """How it takes k, as a tag of numerics.orders."""

    @property
    def entering(self) -> Format:
        """Format to which operands are cut as they enter the unit; fp32 if they are not."""

    @property
    def step_error(self) -> StepError | None:
        """Of its fused steps; None if it has none."""

    @property
    def adder(self) -> Format:
        """The format in which its additions round."""

    @property
    def result(self) -> Format:
        """The format of a finished sum, before it is stored."""

    def multiply(self, a: Array, b: Array, acc: Array | None) -> Array:
        """The product, in the accumulator's carrier."""

    def levels(self, k: int, before: Levels | None) -> Levels:
        """After ``k`` more products onto a sum that has been through ``before`` (None: +0)."""


def additions(rule: Rule, k: int, before: int | None) -> int:
    """Additions that a product may pass through in a sum of ``k`` products, onto one that has been
    through ``before`` (None: a new sum)."""
    return rule.levels(k, None if before is None else Levels(before)).additions


@dataclass(frozen=True)
class Adders:
    """What the rules have in common that know additions only."""

    adder: Format = FP32
    entering: Format = FP32
    step_error: StepError | None = None

    @property
    def result(self) -> Format:
        return self.adder

    @property
    def adders(self) -> str:
        return "chain"


@dataclass(frozen=True)
class Sequential(Adders):
    """One chain in ascending k; product and sum are rounded on their own, to fp32 or narrower."""

    @property
    def tag(self) -> str:
        return f"sequential-{self.adder.name}"

    def multiply(self, a: Array, b: Array, acc: Array | None) -> Array:
        if self.adder is FP32:
            return accumulate.in_place_fp32(a, b, acc)
        return accumulate.narrow_chain(a, b, acc, self.adder)

    def levels(self, k: int, before: Levels | None) -> Levels:
        # The first product of a chain meets +0, which rounds nothing.
        return Levels(k - 1 if before is None else before.additions + k)


@dataclass(frozen=True)
class Tree(Adders):
    """Adder trees over ``width`` products, each then added to the accumulator."""

    width: int = 2

    @property
    def tag(self) -> str:
        return f"tree{self.width}-{self.adder.name}"

    @property
    def adders(self) -> str:
        return f"tree:{self.width}"

    def multiply(self, a: Array, b: Array, acc: Array | None) -> Array:
        if self.adder is FP32:
            return accumulate.trees_fp32(a, b, self.width, acc)
        return accumulate.narrow_trees(a, b, self.width, acc, self.adder)

    def levels(self, k: int, before: Levels | None) -> Levels:
        depth, trees = self.width.bit_length() - 1, -(-k // self.width)
        if before is None:
            return Levels(depth + trees - 1)
        return Levels(max(before.additions, depth) + trees)


@dataclass(frozen=True)
class Fused(Adders):
    """SIMT lanes: chains of fused multiply-adds in ascending k, then a butterfly over the lanes."""

    lanes: int = 1

    @property
    def tag(self) -> str:
        return f"fma-{self.adder.name}" if self.lanes == 1 else f"lanes{self.lanes}-fp32"

    @property
    def adders(self) -> str:
        return "chain" if self.lanes == 1 else f"lanes:{self.lanes}"

    def multiply(self, a: Array, b: Array, acc: Array | None) -> Array:
        return accumulate.fused_chain(a, b, self.lanes, acc, np.dtype(self.adder.carrier))

    def levels(self, k: int, before: Levels | None) -> Levels:
        if self.lanes == 1:
            return Levels(k if before is None else before.additions + k)
        chain = -(-k // self.lanes) + self.lanes.bit_length() - 1
        return Levels(max(chain, 0 if before is None else before.additions) + 1)


@dataclass(frozen=True)
class Exact(Adders):
    """Integers: exact, wrapped modulo 2**32 or saturated once per instruction."""

    saturates: bool = False

    @property
    def tag(self) -> str:
        return "exact int32, saturating" if self.saturates else "exact int32"

    @property
    def adders(self) -> str:
        return "exact"

    def multiply(self, a: Array, b: Array, acc: Array | None) -> Array:
        return accumulate.exact_int32(a, b, acc, saturates=self.saturates)

    def levels(self, k: int, before: Levels | None) -> Levels:
        return Levels()


@dataclass(frozen=True)
class TensorCoreRule:
    """A chain of fused steps over operands of formats ``a`` and ``b``.

    Operands of a wider format (fp32 where a tensor core reads tf32) are cut to ``entering``. Where
    one of every ``sparse`` neighbouring weights is kept (0: all are), a step takes its products
    from as many times more k; products of zeros change nothing in it, and what faces a weight that
    was left out is finite.
    """

    step: DotStep
    a: Format
    b: Format
    entering: Format = FP32
    adder: Format = FP32
    sparse: int = 0

    @property
    def tag(self) -> str:
        step = self.step
        kept = f"-{step.kept_bits}" if step.kept_bits < step.format.mantissa_bits else ""
        picked = f" of {self.window}" if self.sparse else ""
        k = f"k{step.products}{picked}"
        return f"{k} f{step.fraction_bits} {step.rounding}{kept} {step.result}"

    @property
    def window(self) -> int:
        """Neighbouring k that one step takes its products from."""
        return self.step.products * (self.sparse or 1)

    @property
    def adders(self) -> str:
        return f"chain:{self.step.products}"

    @property
    def result(self) -> Format:
        return self.step.format

    @property
    def step_error(self) -> StepError:
        return step_error(self.step, self.a, self.b)

    def multiply(self, a: Array, b: Array, acc: Array | None) -> Array:
        parts = parts_of(self.a, a), parts_of(self.b, np.ascontiguousarray(b.T))
        step, fmt = replace(self.step, products=self.window), self.step.format
        bits = step.multiply(*parts, accumulator_bits(fmt, acc, (a.shape[0], b.shape[1])))
        return fmt.decode(fmt.stored(bits))

    def levels(self, k: int, before: Levels | None) -> Levels:
        steps = -(-k // self.window)
        return Levels(0, steps if before is None else before.steps + steps)


@dataclass(frozen=True)
class EmulatedFp8:
    """mma.sync with fp8 on GPUs whose fp8 path it does not use (Hopper, Blackwell).

    Operands are widened to fp16. Of every 32 k, the products with k mod 4 in {0, 1} and then those
    with k mod 4 in {2, 3} are steps of 16 as for fp16 operands, with results in ``accumulator``,
    from c = 0; C is added last, to nearest. Identified on captures of H100, H200 and B200
    (validation/tensor_cores), which show an fp32 result on B200 only, and not which way its steps
    round: sums of fp8 products are exact in them. NVIDIA says that the instruction is emulated in
    CUTLASS issue 1986.
    """

    accumulator: Format
    a: Format
    b: Format
    entering: Format = FP32

    INSTRUCTION = 32

    @property
    def step(self) -> DotStep:
        """One of the two steps of an instruction."""
        wide = DotStep(products=16, fraction_bits=25)
        if self.accumulator is FP32:
            return wide
        return replace(wide, result="fp16", kept_bits=10, rounding="RNE")

    @property
    def tag(self) -> str:
        return f"emulated fp8, 2 steps of k16 f25, c last in {self.accumulator.name}"

    @property
    def adders(self) -> str:
        return f"chain:{self.INSTRUCTION}"

    @property
    def adder(self) -> Format:
        return self.accumulator

    @property
    def result(self) -> Format:
        return self.accumulator

    @property
    def step_error(self) -> StepError:
        return step_error(self.step, self.a, self.b)

    def multiply(self, a: Array, b: Array, acc: Array | None) -> Array:
        parts_a, parts_b = parts_of(self.a, a), parts_of(self.b, np.ascontiguousarray(b.T))
        shape = (a.shape[0], b.shape[1])
        total = np.zeros(shape, np.float32) if acc is None else np.array(acc, np.float32)
        for first in range(0, a.shape[1], self.INSTRUCTION):
            ks = np.arange(first, min(first + self.INSTRUCTION, a.shape[1]))
            total = self.add(total, self._steps(parts_a, parts_b, ks, shape))
        return total

    def dots(self, a: Parts, b: Parts, c: Array) -> Array:
        """One instruction on the rows of ``a[n, 32]`` and ``b[n, 32]``, onto fp32 ``c[n]``."""
        bits = np.zeros(len(c), dtype=np.uint32)
        for chosen in self.halves(np.arange(self.INSTRUCTION)):
            bits = self.step.dots(a.columns(chosen), b.columns(chosen), bits)
        return self.add(c, self.values(bits))

    def add(self, c: Array, sums: Array) -> Array:
        """C, in the accumulator's format, and the sums of an instruction, rounded once."""
        fmt = self.accumulator
        with np.errstate(all="ignore"):
            return fmt.decode(fmt.encode(fmt.decode(fmt.encode(c)) + sums))

    def _steps(self, a: Parts, b: Parts, ks: Array, shape: tuple[int, int]) -> Array:
        bits: Bits = np.zeros(shape, dtype=np.uint32)
        for chosen in self.halves(ks):
            bits = self.step.multiply(a.columns(chosen), b.columns(chosen), bits)
        return self.values(bits)

    @staticmethod
    def halves(ks: Array) -> tuple[Array, Array]:
        """The k of the first step and of the second."""
        return ks[ks % 4 < 2], ks[ks % 4 >= 2]

    def values(self, bits: Bits) -> Array:
        """What bit patterns of the accumulator mean."""
        return self.accumulator.decode(self.accumulator.stored(bits))

    def levels(self, k: int, before: Levels | None) -> Levels:
        instructions = -(-k // self.INSTRUCTION)
        held = Levels() if before is None else before
        return Levels(held.additions + instructions, max(held.steps, 2))


def accumulator_bits(fmt: Format, acc: Array | None, shape: tuple[int, int]) -> Bits:
    """Bit patterns of an accumulator; +0 if there is none."""
    if acc is None:
        return np.zeros(shape, dtype=np.uint32)
    return np.ascontiguousarray(fmt.codes(fmt.encode(acc)).astype(np.uint32))


def step_error(step: DotStep, a: Format, b: Format) -> StepError:
    """The error bound of one step, see StepError."""
    cut = step.products * 2.0**-step.fraction_bits
    delivered = 2.0 ** -(step.kept_bits + (step.rounding == "RNE"))
    least = 2.0**a.min_exponent + 2.0**b.min_exponent
    smallest = 2.0 ** (step.format.min_exponent - step.kept_bits)
    # c = 0 aligns the terms to 2^-126, a subnormal c to the smallest normal exponent.
    floor = smallest + (step.products + 1) * 2.0 ** (
        max(step.format.min_exponent, -126) - step.fraction_bits
    )
    floor += cut * 2.0 ** (a.min_exponent + b.min_exponent)
    return StepError(cut + delivered, cut * least, floor)
