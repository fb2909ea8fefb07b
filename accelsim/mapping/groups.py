"""Products of different heights, as experts make them: dealt to the cores, or cut for all of them.

A product of few rows takes as long as its weight takes to arrive, one of many as long as the arrays
need. Whole products are dealt by this estimate, the longest first and always to the core that has
least to do (Graham, Bounds on Multiprocessing Timing Anomalies, 1969: within 4/3 of the best). If
one core would still end far behind the mean, as where one expert gets most of the tokens, every
product is cut along its longer dimension and all cores work on each.
"""

from __future__ import annotations

from collections.abc import Sequence

from accelsim.mapping.lowering import Core, Lowering
from accelsim.mapping.operands import Stored
from accelsim.mapping.products import CoreProducts, Product, by_shape, lower_products, over_cores
from accelsim.workload.operators import GroupedGemm

UNEVEN = 1.25
"""How much more than the mean the fullest core may have before products are cut."""


def grouped_products(op: GroupedGemm, low: Lowering) -> list[Product]:
    """One product for each group that has rows."""
    low.build.note(
        f"{sum(rows > 0 for rows in op.m)} of {len(op.m)} groups have rows,"
        f" the largest {max(op.m)}, {op.imbalance:.2f} times the mean"
    )
    a, c = low.matrix(op.inputs[0], rows=op.rows), low.matrix(op.output, rows=op.rows)
    b = low.matrix(op.inputs[1], rows=len(op.m) * op.k)
    everything = slice(None)
    return [
        Product(
            Stored(a[span, everything]),
            b[group * op.k : (group + 1) * op.k, everything],
            c[span, everything],
        )
        for group, span in enumerate(op.spans)
        if span.stop > span.start
    ]


def lower_groups(low: Lowering, products: Sequence[Product]) -> None:
    """Emit products of one n and k and of different heights."""
    if low.multicasts:
        # A team of cores works on one product after the other and reads every tile once.
        for same_shape in by_shape(products):
            lower_products(low, same_shape)
        return
    for core, mine in zip(low.cores, _dealt(low, products), strict=True):
        tallest = max((product.m for product in mine), default=0)
        for same_shape in by_shape(mine):
            told = same_shape[0].m == tallest  # of many tilings the note tells one
            CoreProducts(low, core, same_shape, told=told).emit()


def _dealt(low: Lowering, products: Sequence[Product]) -> list[list[Product]]:
    """What each core computes."""
    shares: list[list[Product]] = [[] for _ in low.cores]
    cycles = [0.0] * len(shares)
    for product in sorted(products, key=lambda p: -p.m):
        least = cycles.index(min(cycles))
        shares[least].append(product)
        cycles[least] += _cycles(low, low.cores[least], product)
    if max(cycles) * len(cycles) <= UNEVEN * sum(cycles):
        return shares
    shares = [[] for _ in low.cores]
    for product in products:
        for core, share in over_cores(low, [product]):
            shares[core.index] += share
    return shares


def _cycles(low: Lowering, core: Core, product: Product) -> float:
    """What a product takes on one core, about: its multiplications or the way of its weight."""
    array = core.arrays[0][1]
    peak = len(core.arrays) * array.peak_macs_per_cycle()
    compute = product.m * product.n * product.k / peak
    if low.ideal:
        return compute
    bandwidth = low.core_bytes_per_second / low.arch.clocks[array.clock]
    coded = low.coded.of(product.b)
    bits = coded.mean_bits if coded else product.b.fmt.bits
    return max(compute, product.n * product.k * bits / 8 / bandwidth)
