"""Products of matrices that lie in banks equal the declared rule, whatever their shape.

Shapes, grids of banks and places are drawn with a seed. A family's layout stores a matrix; its
commands, which know nothing of the layout, multiply it with a vector, row by row and column by
column with the bank's accumulator. Every element must have an address of its own and be found
there, and every result have the bits of the family's rule in its declared order of reduction, and
lie within that rule's derived bound of the product in float64. Vectors of HBM-PIM and AiM go
through the steps of their programs, HBM-PIM's by its microprograms, and must have the bits of one
operation in float64, rounded.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from accelsim.functional.bank_memory import BankMemory, bank_order, gemv
from accelsim.functional.bank_registers import RegisterUnits
from accelsim.functional.bank_vectors import VectorBanks
from accelsim.hw.pim.catalog import family as shipped_family
from accelsim.hw.pim.layouts.families import (
    CACHES,
    WEIGHTS,
    Heads,
    cache_layouts,
    weight_layout,
)
from accelsim.hw.pim.layouts.layout import BankGrid, Layout
from accelsim.hw.pim.layouts.vectors import vector_layout
from accelsim.hw.pim.operators import Elementwise, parse
from accelsim.hw.pim.programs.aim import aim_steps
from accelsim.hw.pim.programs.crf import REGISTERS, elementwise_program
from accelsim.hw.pim.programs.hbm_pim import hbm_pim_steps, vector_columns
from accelsim.numerics import bounds
from accelsim.numerics.arithmetic import arithmetic, types_of
from accelsim.numerics.formats import FORMATS
from accelsim.results.claims import Claim, Row

CLAIM = Claim(
    name="bank-layouts",
    statement="wrong addresses and results of 40 random matrices, or vectors, per family of banks",
    source="the rules of numerics.bank_macs in the declared order, derived bounds, float64",
    tolerance=0.0,
)

SHAPES = 40
ROW_BYTES = (256, 1024, 2048)
FORMAT = {"aim": "bf16", "pim-gpt": "bf16", "newton": "bf16"}


def rows() -> Iterator[Row]:
    """Wrong elements by family and matrix."""
    for family in WEIGHTS:
        generator = random.Random(f"{family} weights")
        wrong = sum(_wrong(family, _weights(generator, family), i) for i in range(SHAPES))
        yield Row(f"{family}, weights", 0, wrong, wrong == 0)
    for family in CACHES:
        generator = random.Random(f"{family} cache")
        wrong = sum(_wrong_cache(generator, family, i) for i in range(SHAPES))
        yield Row(f"{family}, keys and values", 0, wrong, wrong == 0)
    for operator in ("add", "mul", "relu", "ewmul", "ewadd", "copy"):
        generator = random.Random(operator)
        wrong = sum(_wrong_vectors(generator, operator, i) for i in range(SHAPES))
        yield Row(f"vectors, {operator}", 0, wrong, wrong == 0)


def _wrong_vectors(generator: random.Random, name: str, seed: int) -> int:
    """Results that are not those of the operation in float64."""
    found = shipped_family("hbm-pim" if name in ("add", "mul", "relu") else "aim")
    parts = replace(found.device.organization, rows=128, columns=generator.choice((8, 32, 64)))
    device = replace(found.device, organization=parts)
    found = replace(found, channels=generator.randint(1, 4), device=device)
    work = parse(f"{name}:n={generator.randint(1, 9000)}")
    assert isinstance(work, Elementwise)
    layout = vector_layout(found, work)
    fmt = FORMATS["bf16" if found.programs == "banks" else "fp16"]
    drawn = np.random.default_rng(seed).standard_normal((work.vectors, work.n))
    a = np.asarray(fmt.decode(fmt.encode(drawn)), dtype=np.float32)
    memory = BankMemory(layout.grid, fmt, 0, layout.grid.rows - 1)
    memory.store(layout, a)
    if found.programs == "hbm-pim":
        tiles = vector_columns(found, work.n) // REGISTERS
        RegisterUnits(memory, elementwise_program(work, tiles)).run(hbm_pim_steps(found, work))
    else:
        VectorBanks(memory).run(aim_steps(found, work) or ())
    x, y = a[0].astype(np.float64), a[1].astype(np.float64)
    exact = {"add": x + y, "ewadd": x + y, "relu": np.maximum(x, 0), "copy": x}.get(name, x * y)
    want = np.asarray(fmt.decode(fmt.encode(exact)), dtype=np.float32)
    return int((memory.load(layout)[-1] != want).sum())


def _grid(generator: random.Random, banks: tuple[int, ...] = (4, 8, 16)) -> BankGrid:
    channels, count = generator.randint(1, 4), generator.choice(banks)
    return BankGrid(channels, count, 8192, generator.choice(ROW_BYTES))


def _weights(generator: random.Random, family: str) -> Layout:
    sizes = generator.randint(1, 300), generator.randint(1, 900)
    return weight_layout(family, _grid(generator), *sizes, generator.randint(0, 9))


def _wrong_cache(generator: random.Random, family: str, seed: int) -> int:
    size = generator.choice((16, 32, 64, 128))
    grid = _grid(generator, (8, 16, 64) if family == "attacc" else (4, 8, 16))
    count = 1 if family == "attacc" else generator.randint(1, 5)
    heads = Heads(count, size, generator.randint(1, 400))
    place, first = generator.randrange(grid.channels), generator.randint(0, 9)
    found = cache_layouts(family, grid, heads, place, first)
    return sum(_wrong(family, layout, seed, size) for layout in found)


def _wrong(family: str, layout: Layout, seed: int, head: int = 0) -> int:
    """Elements without an address of their own, and results that are not the rule's."""
    fmt = FORMATS[FORMAT.get(family, "fp16")]
    rng = np.random.default_rng(seed)
    w, x = (
        np.asarray(fmt.decode(fmt.encode(rng.standard_normal(shape))), dtype=np.float32)
        for shape in ((layout.rows, layout.cols), layout.cols)
    )
    memory = BankMemory.holding(fmt, layout)
    memory.store(layout, w)
    wrong = int((memory.load(layout) != w).sum())
    i, j = np.indices(w.shape)
    row, col = layout.element(layout.place(i, j))
    wrong += int(((row != i) | (col != j)).sum())
    kind, _, counts = bank_order(family, layout, layout.cols).adders.partition(":")
    lanes = f"macs{counts.replace(':', 'x')}-fp16"
    trees = "banks4-tree16-fp32" if kind == "banks" else "tree16-fp32"
    unit = arithmetic(lanes if kind == "lanes" else trees)
    types = types_of(fmt.name, fmt.name, "fp32")
    rule = unit.reduction(types, bank_order(family, layout, layout.cols), layout.cols)
    got = gemv(family, memory, layout, unit.rule(types), x, head)
    wide = w.astype(np.float64), x.astype(np.float64)[:, None]
    off = np.abs(got - (wide[0] @ wide[1])[:, 0]) > bounds.product(*wide, rule)[:, 0]
    return wrong + int((off | (got != rule.multiply(w, x[:, None], None)[:, 0])).sum())
