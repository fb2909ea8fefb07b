"""Convolution and pooling tap by tap: right for every way to cut a tile, and what they cost."""

from __future__ import annotations

import random

import pytest

from accelsim.api import check, simulate
from accelsim.errors import AccelsimError
from accelsim.mapping import conv_tiling
from accelsim.mapping.conv_tiling import Pieces
from accelsim.mapping.planes import Planes
from accelsim.workload.operators import Conv2d, Pool2d

SMALL = {"mxu.rows": 16, "mxu.cols": 16}
RESNET = "fh=3,fw=3,padding=1,bias=true,dtype=fp32"


def conv(**fields: object) -> Conv2d:
    shape = {"batch": 1, "h": 8, "w": 8, "cin": 4, "fh": 3, "fw": 3, "cout": 4, **fields}
    return Conv2d("conv", ("x", "w"), ("y",), **shape)  # type: ignore[arg-type]


def test_planes_split_the_pixels_by_the_phase_of_the_stride() -> None:
    plain = Planes(conv(padding=(1, 1, 1, 1)), images=2, out_rows=8)
    assert (plain.phases, plain.plane_rows, plain.plane_cols) == ([(0, 0)], 10, 10)
    assert plain.rows == 200
    assert plain.run(8) == (7 * 10 + 8) * 2
    strided = Planes(conv(stride=(2, 2), padding=(1, 1, 1, 1)), images=1, out_rows=4)
    assert strided.phases == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert (strided.plane_rows, strided.plane_cols) == (5, 5)
    single = Planes(conv(fh=1, fw=1, stride=(2, 2)), images=1, out_rows=4)
    assert single.phases == [(0, 0)]
    assert single.rows == 16


def test_every_tap_lies_inside_the_tile() -> None:
    for stride in ((1, 1), (2, 2), (3, 1)):
        for filters in ((3, 3), (7, 5), (1, 4)):
            op = conv(h=20, w=19, fh=filters[0], fw=filters[1], stride=stride)
            planes = Planes(op, images=3, out_rows=4)
            last = max(planes.tap(i, j) for i in range(op.fh) for j in range(op.fw))
            assert last + planes.run(4) <= planes.rows


def _shapes(count: int) -> list[str]:
    generator = random.Random(3)
    found = []
    for _ in range(count):
        fh, fw = generator.randint(1, 4), generator.randint(1, 4)
        h, w = generator.randint(fh, 12), generator.randint(fw, 12)
        groups = generator.choice((1, 1, 1, 2))
        padding = generator.randint(0, min(fh, fw) - 1)
        extras = generator.choice(
            ("", ",bias=true", ",activation=relu", ",bias=true,residual=true,activation=gelu")
        )
        found.append(
            f"batch={generator.randint(1, 5)},h={h},w={w},fh={fh},fw={fw},padding={padding},"
            f"stride={generator.randint(1, 3)},cin={groups * generator.randint(1, 20)},"
            f"cout={groups * generator.randint(1, 40)},groups={groups}{extras}"
        )
    return found


@pytest.mark.parametrize("shape", _shapes(24))
@pytest.mark.parametrize("vmem", ["48 KiB", "2 MiB"])
def test_random_convolutions_are_right(shape: str, vmem: str) -> None:
    result = check("tpu-v3", f"conv2d:{shape}", overrides={**SMALL, "vmem.capacity": vmem})
    assert result.ok, result.first


@pytest.mark.parametrize(
    "pieces", ["flat", "rows", "halves", "flat filters", "row filters", "pixels"]
)
def test_every_way_to_cut_a_tile_is_right(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        conv_tiling, "_best_pieces", lambda op, m, planes, filters, channels: (pieces, 1.0)
    )
    conv_tiling.best_conv_tiling.cache_clear()
    extras = "bias=true,residual=true,activation=relu"
    shape = f"conv2d:batch=3,h=9,w=7,cin=20,cout=40,fh=3,fw=3,padding=1,{extras}"
    result = check("tpu-v3", shape, overrides=SMALL)
    conv_tiling.best_conv_tiling.cache_clear()
    assert result.ok, result.first


def test_the_image_is_read_once_where_it_fits() -> None:
    moved = simulate("tpu-v3", f"conv2d:h=28,w=28,cin=128,cout=128,{RESNET}").traffic_bytes
    image, filters = 28 * 28 * 128 * 4, 9 * 128 * 128 * 4
    assert moved["hbm"]["read"] < 1.4 * (image + filters)
    assert moved["hbm"]["write"] == image


def test_half_the_channels_use_half_the_array() -> None:
    """The cycles of a convolution whose channels fill the rows, and of one that fills half."""
    full = simulate("tpu-v3", f"conv2d:h=56,w=56,cin=128,cout=128,{RESNET}")
    half = simulate("tpu-v3", f"conv2d:h=56,w=56,cin=64,cout=64,{RESNET}")
    assert half.macs * 4 == full.macs
    assert half.cycles > 0.85 * full.cycles


def test_a_batch_that_fills_the_lanes_better_is_held_in_the_array() -> None:
    held = simulate("tpu-v3", f"conv2d:batch=16,h=8,w=8,cin=16,cout=16,{RESNET}")
    assert "pixels held in the array" in held.operators[0].mapping
    single = simulate("tpu-v3", f"conv2d:batch=8,h=8,w=8,cin=16,cout=16,{RESNET}")
    assert "held" not in single.operators[0].mapping


def test_what_cannot_be_mapped_says_why() -> None:
    tiny = {"vmem.capacity": "1 KiB"}
    with pytest.raises(AccelsimError, match="one row of one image with one block of filters"):
        simulate("tpu-v3", f"conv2d:h=28,w=28,cin=128,cout=128,{RESNET}", overrides=tiny)
    with pytest.raises(AccelsimError, match="one row of one image with its double buffers"):
        simulate("tpu-v3", "pool2d:function=max,h=28,w=28,channels=9,fh=2,fw=2", overrides=tiny)
    with pytest.raises(AccelsimError, match="tapwise-conv needs one scratchpad"):
        simulate("systolic", "conv2d:h=5,w=5,cin=2,cout=2,fh=3,fw=3", mapper="tapwise-conv")


@pytest.mark.parametrize("vmem", ["16 KiB", "1 MiB"])
@pytest.mark.parametrize(
    "shape",
    [
        "function=max,h=12,w=11,channels=20,fh=3,fw=3,stride=2,padding=1,batch=5",
        "function=max,h=9,w=9,channels=8,fh=2,fw=3,dtype=int8,batch=3",
        "function=mean,h=9,w=10,channels=40,fh=3,fw=2,stride=2,batch=2,dtype=fp32",
    ],
)
def test_pooling_is_right_in_small_memories(shape: str, vmem: str) -> None:
    result = check("tpu-v3", f"pool2d:{shape}", overrides={"vmem.capacity": vmem})
    assert result.ok, result.first


def test_pooling_that_means_nothing_is_refused() -> None:
    fields = {"batch": 1, "h": 8, "w": 8, "channels": 4, "fh": 2, "fw": 2}

    def pool(**more: object) -> Pool2d:
        return Pool2d("pool", ("x",), ("y",), **{**fields, "function": "max", **more})  # type: ignore[arg-type]

    with pytest.raises(AccelsimError, match="function 'sum'; accepted: max, mean"):
        pool(function="sum")
    with pytest.raises(AccelsimError, match="padding of a mean; accepted: none"):
        pool(function="mean", padding=(1, 0, 0, 0))
    with pytest.raises(AccelsimError, match="accepted: less than the window"):
        pool(padding=(2, 0, 0, 0))
    with pytest.raises(AccelsimError, match="dtype 'int8'"):
        simulate("tpu-v3", "pool2d:function=mean,h=8,w=8,channels=4,fh=2,fw=2,dtype=int8")
