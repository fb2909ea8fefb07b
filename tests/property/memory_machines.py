"""Small machines with every kind of memory between cores and tensors, and work for them."""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

from hypothesis import strategies as st

from accelsim.arch import Architecture
from accelsim.hw.cache import Cache
from accelsim.hw.dma import Dma
from accelsim.hw.dram.block import Dram
from accelsim.hw.dram.catalog import device
from accelsim.hw.memory import MainMemory
from accelsim.hw.noc import Network
from accelsim.hw.noc.kinds import Bus, Crossbar, Mesh, Ring
from accelsim.hw.sram import Sram
from accelsim.hw.systolic import Systolic
from accelsim.hw.vector import Vector

CAPACITY = 1 << 28
SPEED = {"bandwidth": 16 * 10**9, "hop_latency": 2}


@st.composite
def works(draw):
    """One operator of a size that takes thousands of cycles."""
    size, small = st.integers(1, 200), st.integers(1, 3)
    kind = draw(st.sampled_from(["gemm", "gemm", "attention", "softmax", "conv2d"]))
    if kind == "gemm":
        m, n, k = (draw(size) for _ in range(3))
        return f"gemm:m={m},n={n},k={k},batch={draw(small)}"
    if kind == "attention":
        return f"attention:heads={draw(small)},kv_heads=1,q={draw(size)},kv={draw(size)},d=32"
    if kind == "softmax":
        return f"softmax:rows={draw(size)},cols={draw(size)}"
    side = draw(st.integers(3, 12))
    return (
        f"conv2d:h={side},w={side},cin={draw(size) % 40 + 1},cout={draw(size) % 40 + 1},fh=3,fw=3"
    )


@st.composite
def drams(draw):
    """Few channels of a DRAM device."""
    return Dram(
        device=draw(st.sampled_from(["ddr4-2400", "hbm2", "lpddr5-6400"])),
        channels=draw(st.sampled_from([1, 2, 4])),
        capacity=CAPACITY,
        hashing=draw(st.booleans()),
        page=draw(st.sampled_from(["open", "closed"])),
        window=draw(st.sampled_from([4, 32])),
        refresh=draw(st.booleans()),
        latency=draw(st.sampled_from([0.0, 50e-9])),
    )


@st.composite
def chains(draw):
    """A last-level cache of all cores, perhaps private ones before it."""
    shared = Cache(
        of="hbm",
        capacity=draw(st.sampled_from([16, 64, 1024])) << 10,
        line=128,
        sectors=4,
        ways=8,
        shared=True,
        banks=4,
        width=32,
        latency=30,
    )
    own = Cache(of="last", capacity=8 << 10, line=64, ways=4, width=32, latency=5)
    return draw(st.sampled_from([{"last": shared}, {"first": own, "last": shared}]))


@st.composite
def networks(draw, cores: int):
    """A network that joins the cores and the main memory."""
    kind = draw(st.sampled_from(["bus", "crossbar", "ring", "mesh"]))
    cast = draw(st.booleans())
    made: Network
    if kind == "ring":
        made = Ring(nodes=cores + 1, multicast=cast, at={"hbm": [cores]}, **SPEED)
    elif kind == "mesh":
        made = Mesh(rows=2, cols=cores + 1, multicast=cast, at={"hbm": [[0, 0], [1, 0]]}, **SPEED)
    else:
        made = {"bus": Bus, "crossbar": Crossbar}[kind](multicast=cast, **SPEED)
    return {"net": made}


@st.composite
def machines(draw, memory=None, caches=None, network=None):
    """A machine on which anything may be in the way; True or False say that something is or not."""

    def wanted(choice):
        return draw(st.booleans()) if choice is None else choice

    cores = draw(st.integers(1, 3))
    dram = draw(drams()) if wanted(memory) else None
    plain = MainMemory(capacity=CAPACITY, bandwidth=20 * 10**9, latency=60e-9, granule=32)
    banked = {"banks": 8, "width": 8, "ports": draw(st.sampled_from([1, 2]))}
    narrow = banked if draw(st.booleans()) else {}
    return Architecture.build(
        name="any",
        clock="1 GHz",
        cores=cores,
        units={
            "array": Systolic(rows=8, cols=8, inputs="spad", weights="spad", outputs="spad"),
            "vpu": Vector(lanes=8, memory=("spad",)),
            "dma": Dma(count=draw(st.integers(1, 2))),
        },
        memories={"hbm": dram or plain, "spad": Sram(capacity=1 << 16, **narrow)},
        caches=draw(chains()) if wanted(caches) else {},
        networks=draw(networks(cores)) if wanted(network) else {},
    )


def with_banks(factor: int):
    """Every device with so many times the banks of a group, and rows that much fewer."""

    def larger(name: str):
        one = device(name)
        parts = one.organization
        return replace(
            one,
            organization=replace(parts, banks=parts.banks * factor, rows=parts.rows // factor),
        )

    return mock.patch("accelsim.hw.dram.block.find_device", larger)
