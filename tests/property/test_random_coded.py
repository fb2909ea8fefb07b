"""Random products of coded weights on random machines: what is decoded is what is multiplied."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim import arch_configs
from accelsim.api import check
from accelsim.arch.loader import load
from accelsim.arch.model import Architecture
from accelsim.errors import CapacityError

MACHINES = {"edge-npu": "spad", "systolic": "filter", "quad-npu": "spad", "mesh-npu": "spad"}
SPARSE = st.sampled_from(["2:4", "1:4", "4:8", "3:5", "0.03", "0.4", "1"])
ENCODINGS = st.one_of(
    SPARSE.map(lambda sparsity: f"sparsity={sparsity}"),
    SPARSE.map(lambda sparsity: f"sparsity={sparsity},encoding=bitmap"),
    SPARSE.map(lambda sparsity: f"sparsity={sparsity},encoding=tiled-csl"),
    st.sampled_from(["int4:g128", "int4:g32", "int8:col", "int3:g9"]).map("encoding={}".format),
)
VARIANTS = st.sampled_from(
    ["", ",transpose_b=true", ",batch=3", ",batch=5,broadcast_b=true", ",groups=2", ",bias=true"]
)


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Architecture]:
    """The shipped machines with two decoders before their weights."""
    shipped, found = Path(arch_configs.__file__).parent, {}
    for name, memory in MACHINES.items():
        unit = (
            f"decoder: {{kind: decoder, count: 2, staging: {memory}, target: {memory},"
            " elements_per_cycle: 64, coded_bytes_per_cycle: 32}"
        )
        file = tmp_path_factory.mktemp("coded") / f"{name}.yaml"
        text = (shipped / file.name).read_text(encoding="utf-8")
        file.write_text(text.replace("\nunits:\n", f"\nunits:\n  {unit}\n"), encoding="utf-8")
        found[name] = load(file)
    return found


@settings(deadline=None, max_examples=60)
@given(
    name=st.sampled_from(sorted(MACHINES)),
    m=st.integers(1, 90),
    n=st.integers(1, 150),
    groups=st.integers(1, 6),
    words=ENCODINGS,
    variant=VARIANTS,
    dataflow=st.sampled_from(["ws", "os", "is"]),
    capacity=st.sampled_from([1 << 14, 1 << 16, 1 << 19]),
    decoders=st.integers(1, 3),
)
def test_random_products_of_coded_weights(
    machines: dict[str, Architecture], name: str, m: int, n: int, groups: int, words: str,
    variant: str, dataflow: str, capacity: int, decoders: int,
) -> None:  # fmt: skip
    arch = machines[name].override(
        {
            "array.dataflow": dataflow,
            f"{MACHINES[name]}.capacity": capacity,
            "decoder.count": decoders,
        }
    )
    k = 40 * groups - (0 if ":" in words.split(",")[0] and "sparsity" in words else 3)
    try:
        found = check(arch, f"gemm:m={m},n={n},k={k},{words}{variant},dtype=bf16")
    except CapacityError:
        return
    assert found.ok, found.first
