"""Dot products of the units that architecture files name, one output at a time.

Shares no code with accelsim.numerics; from the words of numerics.accumulate (adders), of
numerics.tensor_core (fused steps), of numerics.orders (promotion) and of hw.systolic (folds).
"""

import math
import re
from typing import NamedTuple

from scalar_numbers import LAYOUTS, add, cast, exponent_of, finite, fma, mul, nearest, wrapped


class Step(NamedTuple):
    """A step of a tensor core: how many products, aligned to how many fraction bits, and how many
    of the result's are delivered."""

    products: int
    fraction_bits: int
    kept_bits: int = 23


# By arithmetic and the kind of its operands.
STEPS = {
    ("ampere-mma", "fp16"): Step(8, 24), ("ampere-mma", "bf16"): Step(8, 24),
    ("ampere-mma", "tf32"): Step(4, 24), ("turing-mma", "fp16"): Step(8, 24),
    ("hopper-wgmma", "fp16"): Step(16, 25), ("hopper-wgmma", "bf16"): Step(16, 25),
    ("hopper-wgmma", "tf32"): Step(8, 25),
    ("hopper-wgmma", "fp8_e4m3"): Step(32, 13, 13), ("hopper-wgmma", "fp8_e5m2"): Step(32, 13, 13),
}  # fmt: skip


def product_of(settings, order, formats, encoding=""):
    """``dot(x, y, c)`` of a unit, from its entry in an architecture file, the reduction order of
    the operator, the formats of A, B and the accumulator, and how B is stored; c None: nothing."""
    a, _, accumulator = formats
    if a.startswith("int"):
        return _exact
    promoted = {int(n) for n in re.findall(r"promote:(\d+)", order)}
    assert len(promoted) <= 1, order
    name = settings.get("arithmetic", "sequential-fp32")
    if settings["kind"] == "systolic":
        assert name == "sequential-fp32", name
        assert not promoted, order
        in_place = settings.get("dataflow", "ws") == "os"
        return _adders(settings.get("operands"), 0 if in_place else settings["rows"])
    if settings["kind"] == "sparse_systolic":
        in_place = settings.get("dataflow", "ws") == "os"
        kept, group = (int(n) for n in encoding.split(":")[1:]) if encoding else (1, 1)
        rows = settings["rows"] if settings["groups"] == "time" else settings["rows"] // kept
        return _adders(None, 0 if in_place else rows * group)
    if settings["kind"] == "stream":
        assert name == "sequential-fp32", name
        assert not promoted, order
        return _adders(None, 0)
    if name == "fma-fp32":
        return _multiply_adds
    if settings["kind"] == "pim":
        if name == "macs16-fp16":
            return _lanes(16, "fp16")
        if name == "banks4-tree16-fp32":
            return _bank_trees(4, 16)
        if name == "macs16x2-fp16":
            return _lane_pairs(16)
        assert settings.get("arithmetic", "tree16-fp32") == "tree16-fp32"
        return _trees(16)
    operands = "tf32" if a == "fp32" else a
    step = STEPS[name, operands]
    if "sparse:2" in order.split(";"):  # a step's products come from twice as many k
        step = step._replace(products=2 * step.products)
    chain = _steps(operands, step, accumulator)
    return _promoted(chain, promoted.pop()) if promoted else chain


def _exact(x, y, c):
    return wrapped(sum(u * v for u, v in zip(x, y, strict=True)) + (c or 0))


def _multiply_adds(x, y, c):
    """One after the other, each rounded once."""
    total = 0.0 if c is None else c
    for u, v in zip(x, y, strict=True):
        total = fma(u, v, total) if all(map(finite, (u, v, total))) else u * v + total
    return total


def _trees(width):
    """Products, then neighbours added until one sum is left, which the accumulator takes."""

    def dot(x, y, c):
        total = 0.0 if c is None else c
        for first in range(0, len(x), width):
            part = slice(first, first + width)
            leaves = [mul(u, v) for u, v in zip(x[part], y[part], strict=True)]
            leaves += [0.0] * (width - len(leaves))
            while len(leaves) > 1:
                leaves = [add(u, v) for u, v in zip(leaves[::2], leaves[1::2], strict=True)]
            total = add(total, leaves[0])
        return total

    return dot


def _lanes(lanes, name):
    """Product i to lane i mod lanes, both roundings to a narrow format; halves of the lanes are
    added until one is left."""

    def dot(x, y, c):
        sums = [0.0] * lanes
        for i, (u, v) in enumerate(zip(x, y, strict=True)):
            sums[i % lanes] = cast(name, add(sums[i % lanes], cast(name, mul(u, v))))
        while len(sums) > 1:
            half = len(sums) // 2
            sums = [add(u, v) for u, v in zip(sums[:half], sums[half:], strict=True)]
        return sums[0] if c is None else add(c, sums[0])

    return dot


def _bank_trees(banks, width):
    """Every bank its trees of the products that are its turn, then bank after bank."""
    tree = _trees(width)

    def dot(x, y, c):
        assert c is None
        chosen = [[i for i in range(len(x)) if i // width % banks == bank] for bank in range(banks)]
        parts = [tree([x[i] for i in mine], [y[i] for i in mine], None) for mine in chosen if mine]
        total = parts[0]
        for part in parts[1:]:
            total = add(total, part)
        return total

    return dot


def _lane_pairs(lanes):
    """fp16 products and sums of lanes that take two at a time; lanes added, halves apart."""

    def dot(x, y, c):
        assert c is None
        sums = [0.0] * lanes
        for i, (u, v) in enumerate(zip(x, y, strict=True)):
            lane = i // 2 % lanes
            sums[lane] = cast("fp16", add(sums[lane], cast("fp16", mul(u, v))))
        while len(sums) > 1:
            half = len(sums) // 2
            sums = [add(a, b) for a, b in zip(sums[:half], sums[half:], strict=True)]
        return sums[0]

    return dot


def _adders(entering, fold):
    """Products and sums, each rounded: down every fold from +0, or in place."""

    def chain(x, y, total):
        for u, v in zip(x, y, strict=True):
            total = add(total, mul(u, v))
        return total

    def dot(x, y, c):
        if entering:
            x, y = ([cast(entering, v) for v in side] for side in (x, y))
        total = 0.0 if c is None else c
        if not fold:
            return chain(x, y, total)
        for first in range(0, len(x), fold):
            total = add(total, chain(x[first : first + fold], y[first : first + fold], 0.0))
        return total

    return dot


def _promoted(chain, length):
    def dot(x, y, c):
        total = c
        for first in range(0, len(x), length):
            part = chain(x[first : first + length], y[first : first + length], None)
            total = part if total is None else add(total, part)
        return total

    return dot


def _steps(operands, step, accumulator):
    """A chain of fused steps over values of one format."""

    def dot(x, y, c):
        total = 0.0 if c is None else c
        if operands == "tf32":  # an fp32 word whose low 13 bits are ignored
            x, y = ([_cut(v) for v in side] for side in (x, y))
        for first in range(0, len(x), step.products):
            last = first + step.products
            total = _fused(operands, step, accumulator, x[first:last], y[first:last], total)
        return total

    return dot


def _cut(value):
    if not finite(value) or value == 0:
        return value
    quantum = exponent_of("tf32", value) - LAYOUTS["tf32"].mantissa
    return math.ldexp(math.trunc(math.ldexp(value, -quantum)), quantum)


def _fused(operands, step, accumulator, x, y, c):
    """One step: terms cut off below the largest's exponent, added exactly, rounded once."""
    products = [u * v for u, v in zip(x, y, strict=True)]  # exact: 11 bits by 11
    if not finite(c, *products):
        special = [t for t in (c, *products) if not finite(t)]
        return sum(special[1:], special[0])  # Inf of one sign, or NaN
    terms = [
        (p, exponent_of(operands, u) + exponent_of(operands, v))
        for p, u, v in zip(products, x, y, strict=True)
        if p
    ]
    terms.append((c, exponent_of(accumulator, c) if c else -126))
    last = max(exponent for _, exponent in terms) - step.fraction_bits
    total = sum(math.trunc(math.ldexp(term, -last)) for term, _ in terms)
    if total == 0:
        return 0.0
    if accumulator == "fp16":  # to nearest
        return nearest(accumulator, *_fraction(total, last))
    exponent = max(abs(total).bit_length() - 1 + last, 1 - LAYOUTS[accumulator].bias)
    drop = exponent - step.kept_bits - last
    size = abs(total) >> drop << drop if drop > 0 else abs(total)
    value = math.ldexp(size, last) if size.bit_length() + last <= 128 else math.inf
    return -value if total < 0 else value


def _fraction(units, exponent):
    return (units << exponent, 1) if exponent >= 0 else (units, 1 << -exponent)
