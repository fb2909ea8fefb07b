"""MARLIN's curve: products of fp16 by 4-bit weights on an A10, against fp16 weights.

The kernel keeps the weights' fourfold advantage while it is bound by main memory, up to about 32
rows, and loses it where the tensor cores become the bound. Two things are simulated:

    curve     a weight of 73728 x 18432 at 1 to 128 rows, each case within 15 %; published as a
              range up to 16 rows
    layers    all linear layers of a block of five models at 16 rows, as the ratio of the sums of
              times; published as a range over the models

The middle of a range stands for each of its cases.

Nothing in `a10` was fitted to either. How fast weights are expanded follows from the instructions
of the kernel, main memory's efficiency from a simulation of its channels, and what GA102 does not
publish is taken from the A100.
"""

from __future__ import annotations

from collections.abc import Iterator

from accelsim.api import simulate
from accelsim.results.claims import Claim, Row, truth, within

CLAIM = Claim(
    name="marlin",
    statement="fp16 time over int4:g128 time on an A10, nothing fitted to it",
    source="MARLIN (Apache-2.0), README, figures peak and models, read off; shapes of bench.py",
    tolerance=0.15,
)
ENCODING = "int4:g128"


def rows() -> Iterator[Row]:
    """The curve, then the models."""
    for row in truth(__name__, "curve.csv"):
        m, k, n = (int(row[name]) for name in ("m", "k", "n"))
        found = speedup([(m, k, n)])
        case = f"k={k} n={n}, {m} rows"
        yield within(case, _middle(row["least"], row["most"]), round(found, 3), CLAIM.tolerance)
    yield from _models()


def _models() -> Iterator[Row]:
    """Blocks of models, published as one range."""
    published = _middle(*(row["speedup"] for row in truth(__name__, "range.csv")))
    shapes: dict[str, list[tuple[int, int, int]]] = {}
    for row in truth(__name__, "layers.csv"):
        shapes.setdefault(row["model"], []).append((16, int(row["k"]), int(row["n"])))
    for model, layers in shapes.items():
        found = round(speedup(layers), 3)
        yield within(f"{model}, 16 rows", published, found, CLAIM.tolerance)


def _middle(least: str, most: str) -> float:
    return round((float(least) + float(most)) / 2, 3)


def speedup(shapes: list[tuple[int, int, int]]) -> float:
    """Time with fp16 weights over time with coded ones, of some products together."""
    dense, coded = (
        sum(
            simulate("a10", f"gemm:m={m},n={n},k={k},dtype=fp16{how}").seconds for m, k, n in shapes
        )
        for how in ("", f",encoding={ENCODING}")
    )
    return dense / coded
