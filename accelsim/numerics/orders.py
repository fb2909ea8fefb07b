"""Reduction orders: the free choices of a kernel that change the bits of a matrix product.

A program declares the order of each operator as a *tag*; tags are joined by ";":

    chain              one chain over k, in the steps of the unit's arithmetic
    split:S:G          split-K: S slices, each ceil(ceil(K / G) / S) G long but the last, each a
                       chain from +0; partial sums are added in fp32, forward from slice 0
    promote:N          a chain from +0 over every N of k, whose sum is added to the accumulator in
                       fp32: what fp8 kernels do to leave narrow accumulators (DeepGEMM; cuBLAS)

Tile shapes, warps and the raster of a kernel do not change bits. A split is made of instructions
(each slice writes its own sums, the vector unit adds them); promotion happens within one.
"""

from __future__ import annotations

from dataclasses import dataclass

from accelsim.errors import AccelsimError

FORMS = "chain, split:SLICES:GRAIN, promote:LENGTH"


@dataclass(frozen=True)
class Order:
    """How a reduction is cut up; 1 slice and promotion after 0 mean that it is not."""

    slices: int = 1
    grain: int = 1
    promote: int = 0

    def __str__(self) -> str:
        parts = [f"split:{self.slices}:{self.grain}"] if self.slices > 1 else []
        parts += [f"promote:{self.promote}"] if self.promote else []
        return ";".join(parts) or "chain"

    def cuts(self, k: int) -> list[slice]:
        """The slices of a reduction of length ``k``, none empty."""
        if self.slices == 1:
            return [slice(0, k)]
        grains = -(-k // self.grain)
        length = -(-grains // self.slices) * self.grain
        return [slice(first, min(first + length, k)) for first in range(0, k, length)]


CHAIN = Order()


def orders_of(text: str) -> tuple[Order, ...]:
    """The orders of an operator's kernels, as OperatorInfo.order has them."""
    return tuple(order_of(tag.strip()) for tag in text.split("|")) if text else ()


def within_instruction(text: str) -> Order:
    """What of an operator's orders a unit does within one instruction."""
    return next((Order(promote=order.promote) for order in orders_of(text)), CHAIN)


def order_of(tag: str) -> Order:
    """The order that a tag names; raises AccelsimError saying which tags there are."""
    settings: dict[str, int] = {}
    for part in filter(None, tag.split(";")):
        name, *given = part.split(":")
        keys = {"chain": [], "split": ["slices", "grain"], "promote": ["promote"]}.get(name)
        numbers = [int(text) for text in given if text.isdecimal()]
        wrong = keys is None or len(numbers) != len(given) or len(given) != len(keys)
        if wrong or min(numbers, default=1) < 1 or any(key in settings for key in keys or ()):
            raise AccelsimError(f"unknown reduction order {tag!r}; accepted: {FORMS}")
        settings.update(zip(keys or (), numbers, strict=True))
    return Order(**settings)
