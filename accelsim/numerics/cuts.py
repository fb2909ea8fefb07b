"""Rules made of another: products cut up along k, each stretch a sum of its own.

    Promoted    within one instruction, as kernels leave a narrow accumulator
    Folded      within one instruction, as a column of an array is as long as the array
    Sliced      whole products: split-K

What they do is in numerics.orders, word by word.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.numerics import accumulate
from accelsim.numerics.formats import FORMATS, Format, number_format
from accelsim.numerics.orders import Order
from accelsim.numerics.rules import Levels, Rule, Sequential, StepError

Array = npt.NDArray[Any]

FP32 = FORMATS["fp32"]


@dataclass(frozen=True)
class Cut:
    """Stretches of k, each by ``rule``."""

    rule: Rule

    @property
    def adders(self) -> str:
        return self.rule.adders

    @property
    def entering(self) -> Format:
        return self.rule.entering

    @property
    def step_error(self) -> StepError | None:
        return self.rule.step_error


@dataclass(frozen=True)
class Promoted(Cut):
    """Another rule's chains over every ``length`` of k from +0, added to an fp32 accumulator."""

    length: int
    adder: Format = FP32
    result: Format = FP32

    @property
    def tag(self) -> str:
        return f"{self.rule.tag}; promote:{self.length}"

    def multiply(self, a: Array, b: Array, acc: Array | None) -> Array:
        total = acc
        for first in range(0, a.shape[1], self.length):
            ks = slice(first, first + self.length)
            part = self.rule.multiply(a[:, ks], b[ks], None)
            with np.errstate(all="ignore"):
                total = part if total is None else total.astype(np.float32) + part
        assert total is not None
        return total

    def levels(self, k: int, before: Levels | None) -> Levels:
        inner = self.rule.levels(min(k, self.length), None)
        blocks = -(-k // self.length)
        if before is None:
            return replace(inner, additions=inner.additions + blocks - 1)
        met = before | inner
        return replace(met, additions=met.additions + blocks)


@dataclass(frozen=True)
class Sliced(Cut):
    """Whole products by split-K: another rule's chains over every ``length`` of k, whose sums are
    put together as ``order`` says. The last sum is left in fp32, as it is before it is stored."""

    length: int
    order: Order
    adder: Format = FP32
    result: Format = FP32

    @property
    def tag(self) -> str:
        return f"{self.rule.tag}; {self.order}"

    @property
    def partials(self) -> Format:
        """The format in which partial sums wait."""
        return number_format(self.order.partials)

    def multiply(self, a: Array, b: Array, acc: Array | None) -> Array:
        total, serial = acc, self.order.merge == "serial"
        for first in range(0, a.shape[1], self.length):
            ks = slice(first, first + self.length)
            part = self.rule.multiply(a[:, ks], b[ks], None)
            with np.errstate(all="ignore"):
                if serial:
                    total = part if total is None else self._stored(total) + part
                else:
                    held = self._stored(part)
                    total = held if total is None else total + held
        assert total is not None
        return total

    def _stored(self, sums: Array) -> Array:
        return self.partials.decode(self.partials.encode(sums)).astype(np.float32)

    def levels(self, k: int, before: Levels | None) -> Levels:
        inner = self.rule.levels(min(k, self.length), None)
        met = inner if before is None else before | inner
        slices = -(-k // self.length)
        rests = slices - (before is None) if self.order.merge == "serial" else 1
        return replace(
            met,
            additions=met.additions + slices - (before is None),
            rests=met.rests + rests,
        )


@dataclass(frozen=True)
class Folded(Cut):
    """Another rule's chains down each ``fold`` of reduction rows from +0, which then meet the
    accumulator in fp32: what weight- and input-stationary arrays do."""

    fold: int
    adder: Format = FP32

    @property
    def tag(self) -> str:
        return self.rule.tag

    @property
    def result(self) -> Format:
        return self.rule.result

    def multiply(self, a: Array, b: Array, acc: Array | None) -> Array:
        if self.rule == Sequential():
            return accumulate.folded_fp32(a, b, self.fold, acc)
        adder = self.rule.adder
        total = acc
        for first in range(0, a.shape[1], self.fold):
            ks = slice(first, first + self.fold)
            part = self.rule.multiply(a[:, ks], b[ks], None)
            with np.errstate(all="ignore"):
                total = part if total is None else adder.decode(adder.encode(total + part))
        assert total is not None
        return total

    def levels(self, k: int, before: Levels | None) -> Levels:
        fold = self.rule.levels(min(k, self.fold), None).additions
        folds = -(-k // self.fold)
        if before is None:
            return Levels(fold + folds - 1)
        return Levels(max(before.additions, fold) + folds)
