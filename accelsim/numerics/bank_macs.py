"""Multipliers and adders beside DRAM banks, as rules of accumulation.

    tree    ``width`` multipliers and an adder tree, whose sum an accumulator takes: Newton, AiM,
            and each bank of AttAcc. Products, tree and accumulator may each have a format.
    group   trees of some banks that share a vector, whose sums are added: AttAcc's scores
    lanes   ``lanes`` multiply-accumulate units side by side, each product and each sum rounded;
            the host, or the unit that reads them, adds the lanes in fp32, neighbours that are half
            of what is left apart: HBM-PIM, AttAcc's weighted values.

Formats of the published units: 16-bit floating point in, 16 products per access (Newton, MICRO
2020: bf16; AiM, ISSCC 2022: bf16; HBM-PIM, ISCA 2021: fp16 with fp16 sums; AttAcc, ASPLOS 2024:
fp16). How wide the adders behind the multipliers of Newton, AiM and AttAcc are is not published:
an architecture names them, and fp32 is an assumption.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.numerics.formats import FORMATS, Format
from accelsim.numerics.rules import Levels, StepError, Tree

Array = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]

FP32 = FORMATS["fp32"]


def held(values: Float32, fmt: Format) -> Float32:
    """Values rounded to nearest even in a format of at most 16 bits, or left in fp32."""
    if fmt is FP32:
        return values
    if fmt is FORMATS["fp16"]:
        rounded: Float32 = values.astype(np.float16).astype(np.float32)
        return rounded
    return np.asarray(fmt.decode(fmt.encode(values)), dtype=np.float32)


def coarsest(*formats: Format) -> Format:
    """The one that rounds most."""
    return min(formats, key=lambda fmt: fmt.significand_bits)


@dataclass(frozen=True)
class BankTree:
    """Adder trees over ``width`` products, with three formats."""

    width: int
    products: Format
    sums: Format
    accumulator: Format
    entering: Format = FP32
    step_error: StepError | None = field(default=None)

    @property
    def tag(self) -> str:
        names = (self.products.name, self.sums.name, self.accumulator.name)
        return f"tree{self.width}-{'-'.join(names)}"

    @property
    def adders(self) -> str:
        return f"tree:{self.width}"

    @property
    def adder(self) -> Format:
        """The coarsest of the three: no rounding is larger than its."""
        return coarsest(self.products, self.sums, self.accumulator)

    @property
    def result(self) -> Format:
        return self.accumulator

    def multiply(self, a: Array, b: Array, acc: Array | None) -> Array:
        m, k, n = *a.shape, b.shape[1]
        total = np.zeros((m, n), dtype=np.float32) if acc is None else np.array(acc, np.float32)
        a, b = a.astype(np.float32, copy=False), b.astype(np.float32, copy=False)
        with np.errstate(all="ignore"):
            for first in range(0, k, self.width):
                ks = range(first, min(first + self.width, k))
                leaves = [held(a[:, i, None] * b[i], self.products) for i in ks]
                leaves += [np.zeros_like(total)] * (self.width - len(leaves))
                while len(leaves) > 1:
                    pairs = zip(leaves[::2], leaves[1::2], strict=True)
                    leaves = [held(x + y, self.sums) for x, y in pairs]
                total = held(total + leaves[0], self.accumulator)
        return total

    def levels(self, k: int, before: Levels | None) -> Levels:
        depth, trees = self.width.bit_length() - 1, -(-k // self.width)
        if before is None:
            # The first sum of a tree may be cut to a narrower accumulator.
            return Levels(depth + trees)
        return Levels(max(before.additions, depth) + trees)


@dataclass(frozen=True)
class BankGroup:
    """``banks`` trees that take the next tree's width of products in turn, each for itself; then
    their sums are added in fp32, bank after bank."""

    banks: int
    tree: Tree | BankTree

    @property
    def tag(self) -> str:
        return f"banks{self.banks}-{self.tree.tag}"

    @property
    def adders(self) -> str:
        return f"banks:{self.banks}:{self.tree.width}"

    @property
    def adder(self) -> Format:
        return self.tree.adder

    @property
    def entering(self) -> Format:
        return self.tree.entering

    @property
    def step_error(self) -> StepError | None:
        return self.tree.step_error

    @property
    def result(self) -> Format:
        return FP32

    def multiply(self, a: Array, b: Array, acc: Array | None) -> Array:
        total = acc
        bank = np.arange(a.shape[1]) // self.tree.width % self.banks
        for number in range(int(bank.max()) + 1):
            mine = bank == number
            part = self.tree.multiply(np.ascontiguousarray(a[:, mine]), b[mine], None)
            with np.errstate(all="ignore"):
                total = part if total is None else total.astype(np.float32) + part
        assert total is not None
        return total

    def levels(self, k: int, before: Levels | None) -> Levels:
        trees = -(-k // self.tree.width)
        longest = min(k, -(-trees // self.banks) * self.tree.width)
        additions = self.tree.levels(longest, None).additions + min(self.banks, trees)
        return Levels(max(additions, 0 if before is None else before.additions + self.banks))


@dataclass(frozen=True)
class BankLanes:
    """Lanes take ``together`` products each in turn; then the lanes are added in fp32."""

    lanes: int
    adder: Format
    together: int = 1
    entering: Format = FP32
    step_error: StepError | None = field(default=None)

    @property
    def tag(self) -> str:
        return f"macs{self._counts('x')}-{self.adder.name}"

    @property
    def adders(self) -> str:
        return f"lanes:{self._counts(':')}"

    def _counts(self, mark: str) -> str:
        return f"{self.lanes}{mark}{self.together}" if self.together > 1 else str(self.lanes)

    @property
    def result(self) -> Format:
        return FP32

    def multiply(self, a: Array, b: Array, acc: Array | None) -> Array:
        (m, k), n = a.shape, b.shape[1]
        a, b = a.astype(np.float32, copy=False), b.astype(np.float32, copy=False)
        sums = np.zeros((self.lanes, m, n), dtype=np.float32)
        with np.errstate(all="ignore"):
            for i in range(k):
                product = held(a[:, i, None] * b[i], self.adder)
                lane = sums[i // self.together % self.lanes]
                lane[:] = held(lane + product, self.adder)
            total = lane_sum(sums)
            return total if acc is None else np.asarray(acc, dtype=np.float32) + total

    def levels(self, k: int, before: Levels | None) -> Levels:
        # fp32 additions round less than those of the lanes.
        turns = -(-k // (self.lanes * self.together))
        chain = min(k, turns * self.together) + self.lanes.bit_length() - 1
        return Levels(max(chain, 0 if before is None else before.additions) + 1)


def lane_sum(sums: Float32) -> Float32:
    """Sums over the first axis in fp32, of pairs half of what is left apart."""
    while len(sums) > 1:
        half = len(sums) // 2
        sums = sums[:half] + sums[half:]
    return np.asarray(sums[0], dtype=np.float32)
