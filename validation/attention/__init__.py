"""Every mapping of attention computes the right numbers on random shapes.

Shapes are drawn with a seed: ratios of heads, lengths and head sizes that divide nothing, causal
masks, windows, ALiBi, rope parts, latent keys, pages and common prefixes; every 25th is a step of
decoding behind a long common prefix, which is read for all sequences at once where that is faster.
Keys and values are kept in fp16 and in int8: integers are a format of caches, a softmax has none.
Every shape is executed in the clock's order and in the program's, and every element judged by its
derived bound.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from accelsim.api import check
from accelsim.functional.check import Check
from accelsim.results.claims import Claim, Row

CLAIM = Claim(
    name="attention",
    statement="wrong elements of 200 random attentions per mapper and format of the cache",
    source="float64 references, derived error bounds",
    tolerance=0.0,
)

SHAPES = 200
MACHINES = {
    "flash-attention": ("hbm-npu", "quad-npu", "edge-npu", "mesh-npu"),
    "unified-max-attention": ("hbm-npu", "quad-npu"),
    "unfused-attention": ("systolic", "hbm-npu"),
    "multipass-attention": ("tpu-v3",),
    "gpu-attention": ("a100",),
    "gpu-flash-attention": ("a100", "h100"),
    "gpu-flash-attention-unsplit": ("h100",),
    "gpu-unified-max-attention": ("a100", "h100"),
}
LINEAR = {
    "chunked-linear-attention": ("hbm-npu", "quad-npu", "edge-npu"),
    "gpu-linear-attention": ("a100",),
}
ORDERS = ("clock", "program")
STREAMS = ("stream-naive", "stream-naive-max", "stream-reordered", "stream-running-max")


def rows() -> Iterator[Row]:
    """200 shapes for every mapper and format of the cache."""
    for mapper, machines in MACHINES.items():
        for kept in ("fp16", "int8"):
            generator = random.Random(f"{mapper} {kept}")
            wrong = sum(_wrong(generator, i, mapper, machines, kept) for i in range(SHAPES))
            yield Row(f"{mapper}, cache in {kept}", 0, wrong, wrong == 0)
    for mapper in STREAMS:
        generator = random.Random(mapper)
        wrong = sum(_wrong_stream(generator, mapper) for _ in range(SHAPES))
        yield Row(f"{mapper}, fp16", 0, wrong, wrong == 0)
    for mapper, machines in LINEAR.items():
        generator = random.Random(mapper)
        wrong = sum(_wrong_linear(generator, i, machines) for i in range(SHAPES))
        yield Row(f"{mapper}, fp16", 0, wrong, wrong == 0)


def _wrong(
    generator: random.Random, turn: int, mapper: str, machines: tuple[str, ...], kept: str
) -> int:
    machine = machines[turn % len(machines)]
    shape = drawn_prefix(generator) if turn % 25 == 24 else drawn_shape(generator)
    if "unified" in mapper:
        shape = shape.replace(",alibi=true", "")
    # A GPU of few multiprocessors is as wide as these shapes are.
    overrides = {"cores": 3} if mapper.startswith("gpu-") else None
    text = f"attention:{shape},dtype=fp16,kv_dtype={kept}"
    return sum(
        _not_right(check(machine, text, mapper=mapper, order=order, overrides=overrides))
        for order in ORDERS
    )


def _not_right(verdict: Check) -> int:
    """Elements that are wrong, or of which no bound is known."""
    return verdict.mismatches + verdict.unjudged


def drawn_shape(generator: random.Random) -> str:
    """Any attention over a cache, as text."""
    kv_heads, ratio = generator.randint(1, 3), generator.randint(1, 5)
    kv, batch = generator.randint(1, 90), generator.randint(1, 2)
    causal = generator.random() < 0.6
    # Queries stand behind the keys they see; every third shape is a decoding step.
    q = 1 if generator.random() < 0.33 else min(kv, generator.randint(1, 40))
    fields = {
        "heads": kv_heads * ratio, "kv_heads": kv_heads, "q": q, "kv": kv, "batch": batch,
        "d": generator.randint(1, 40), "causal": str(causal).lower(),
    }  # fmt: skip
    if causal and generator.random() < 0.5:
        fields["window"] = generator.randint(1, kv)
    if generator.random() < 0.25:
        fields["alibi"] = "true"
    if generator.random() < 0.25:
        fields["rope_dim"] = generator.randint(1, 12)
    if generator.random() < 0.25:
        fields["latent"] = "true"
    if generator.random() < 0.4:
        page = fields["page"] = generator.randint(1, 30)
        fields["prefix"] = generator.randint(0, kv // page) * page
    return ",".join(f"{key}={value}" for key, value in fields.items())


def drawn_prefix(generator: random.Random) -> str:
    """A step of decoding of many sequences with a long prefix in common, as text."""
    kv_heads, page = 2, generator.randint(8, 16)
    prefix = generator.randint(1024 // page, 1100 // page) * page
    fields = {
        "heads": kv_heads * generator.randint(2, 4), "kv_heads": kv_heads, "q": 1,
        "kv": prefix + generator.randint(1, 90), "batch": 8, "d": generator.randint(24, 40),
        "page": page, "prefix": prefix,
    }  # fmt: skip
    return ",".join(f"{key}={value}" for key, value in fields.items())


def _wrong_stream(generator: random.Random, mapper: str) -> int:
    kv_heads, ratio = generator.randint(1, 2), generator.randint(1, 3)
    q, kv, d = generator.randint(1, 12), generator.randint(2, 16), generator.randint(1, 20)
    shape = f"heads={kv_heads * ratio},kv_heads={kv_heads},q={q},kv={kv},d={d}"
    text = f"attention:{shape},dtype=fp16"
    return sum(
        _not_right(check("stream-sdpa", text, mapper=mapper, order=order)) for order in ORDERS
    )


def _wrong_linear(generator: random.Random, turn: int, machines: tuple[str, ...]) -> int:
    decay = generator.choice(("none", "fixed", "gated"))
    fields = {
        "heads": generator.randint(1, 4), "q": generator.randint(1, 60),
        "d": generator.randint(1, 24), "batch": generator.randint(1, 2), "decay": decay,
        "chunk": generator.randint(0, 20), "state": str(generator.random() < 0.5).lower(),
    }  # fmt: skip
    text = ",".join(f"{key}={value}" for key, value in fields.items())
    machine = machines[turn % len(machines)]
    return sum(
        _not_right(check(machine, f"linear_attention:{text},dtype=fp16", order=order))
        for order in ORDERS
    )
