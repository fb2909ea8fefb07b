"""Encodings: bytes by hand, round trips of any shape, and every malformed run refused."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.encoding.encoding import Content, tile_offset
from accelsim.encoding.encodings import FAMILIES, CodedForm, encoding
from accelsim.errors import AccelsimError
from accelsim.numerics.formats import number_format
from accelsim.numerics.pruning import keep_largest

FP16, INT8 = number_format("fp16"), number_format("int8")
NAMES = (
    *("nm:1:2", "nm:1:4", "nm:2:4", "nm:2:8", "nm:4:8", "nm:3:5", "nm:1:1", "nm:7:256"),
    *(
        "bitmap",
        "tiled-csl",
        "int4:g128",
        "int4:g32",
        "int4:col",
        "int3:g7",
        "int8:g256",
        "int2:g1",
    ),
)
FORMATS = ("fp16", "bf16", "fp32", "int8", "int16", "fp8_e4m3", "int4")


def matrix(name: str, lines: int, k: int, fmt_name: str, seed: int, density: float) -> Content:
    """A random matrix as an encoding takes it, with drawn positions where it asks for them."""
    fmt, code = number_format(fmt_name), encoding(name)
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((lines, k)).astype(np.float32) * (30 if fmt.is_integer else 1)
    kept = rng.random((lines, k)) < density if code.sparse and not code.fixed else None
    return code.content(fmt.encode(values), fmt, kept)


def same(fmt_name: str, a: npt.NDArray[np.generic], b: npt.NDArray[np.generic]) -> bool:
    fmt = number_format(fmt_name)
    codes = [fmt.codes(np.ascontiguousarray(x)) for x in (a, b)]
    return bool((codes[0] == codes[1]).all())


@settings(deadline=None, max_examples=200)
@given(
    name=st.sampled_from(NAMES),
    fmt=st.sampled_from(FORMATS),
    lines=st.integers(1, 150),
    k=st.integers(1, 150),
    density=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_bits_survive_whole_and_in_tiles(
    name: str, fmt: str, lines: int, k: int, density: float, seed: int
) -> None:
    code, number = encoding(name), number_format(fmt)
    k = -(-k // code.m) * code.m if name.startswith("nm") else k
    try:
        code.check(k, number)
    except AccelsimError:
        return
    content = matrix(name, lines, k, fmt, seed, density)
    coded = code.encode(content, number)
    assert len(coded) == code.nbytes(lines, k, number, content.kept)
    assert same(fmt, code.decode(coded, lines, k, number), content.elements)
    # Ragged tiles, each decoded by itself, are the same elements, and fit into the room.
    height, depth, used = lines // 2 + 1, max(k // 2 // code.k_granule, 1) * code.k_granule, 0
    for line in range(0, lines, height):
        for first in range(0, k, depth):
            window = slice(line, min(line + height, lines)), slice(first, min(first + depth, k))
            part = code.encode(content.tile(*window), number)
            size = [w.stop - w.start for w in window]
            assert same(fmt, code.decode(part, *size, number), content.elements[window])
            used = tile_offset(used, len(part)) + len(part)
    assert used <= code.room(lines, k, number, content.kept)


@pytest.mark.parametrize(
    "name", ["nm:2:4", "nm:3:5", "bitmap", "tiled-csl", "int4:g128", "int4:col"]
)
@pytest.mark.parametrize("shape", [(64, 256), (200, 520)])
def test_the_smallest_tiles_fit_into_the_room(name: str, shape: tuple[int, int]) -> None:
    code, used = encoding(name), 0
    lines, k = shape
    k = -(-k // code.k_granule) * code.k_granule
    content = matrix(name, lines, k, "fp16", 1, 0.37)
    depth = -(-8 // code.k_granule) * code.k_granule
    for line in range(0, lines, 8):
        for first in range(0, k, depth):
            part = content.tile(slice(line, line + 8), slice(first, min(first + depth, k)))
            nbytes = code.nbytes(*part.elements.shape, FP16, part.kept)
            used = tile_offset(used, nbytes) + nbytes
    room = code.room(lines, k, FP16, content.kept)
    assert 0.6 * room < used <= room


# Flags of the elements 0 .. 3 that are not zero -> the two places that are stored. As torch packs
# 2:4: zeros come along from place 2 on.
PLACES = {
    "0000": (2, 3), "0001": (2, 3), "0010": (2, 3), "0011": (2, 3), "0100": (1, 2),
    "0101": (1, 3), "0110": (1, 2), "1000": (0, 2), "1001": (0, 3), "1010": (0, 2),
    "1100": (0, 1),
}  # fmt: skip


@pytest.mark.parametrize("flags", PLACES)
def test_nibbles_of_two_of_four(flags: str) -> None:
    first, second = PLACES[flags]
    line = np.array([[(i + 1) * int(flag) for i, flag in enumerate(flags)]], dtype=np.int8)
    coded = encoding("nm:2:4").encode(Content(line), INT8)
    assert coded.tolist() == [line[0, first], line[0, second], first | second << 2]
    assert (encoding("nm:2:4").decode(coded, 1, 4, INT8) == line).all()


def test_bytes_by_hand() -> None:
    line = np.array([[5, 0, 0, 6, 0, 7, 8, 0]], dtype=np.int8)
    # places 0 3 | 1 2: nibbles 0 | 3 << 2 = 0xC, 1 | 2 << 2 = 0x9, the lower group in the low one
    assert encoding("nm:2:4").encode(Content(line), INT8).tolist() == [5, 6, 7, 8, 0x9C]
    # 3-bit places 0 3 5 6: 0 | 3 << 3 | 5 << 6 | 6 << 9 = 0xD58
    assert encoding("nm:4:8").encode(Content(line), INT8).tolist() == [5, 6, 7, 8, 0x58, 0x0D]
    # bits 0, 3, 5 and 6
    assert encoding("bitmap").encode(Content(line), INT8).tolist() == [0b01101001, 5, 6, 7, 8]


def test_words_of_tiled_csl_by_hand() -> None:
    dense = np.zeros((130, 64), dtype=np.int16)
    dense[0, 3], dense[1, 3], dense[129, 0] = 7, -2, 9
    coded = encoding("tiled-csl").encode(Content(dense), number_format("int16"))
    # Line 1 of a tile: place 64 + (3 ^ 8); line 129 is line 1 of the second one: 64 + (0 ^ 8).
    words = [0x00030007, 0x004BFFFE, 0xFFFF0000, 0xFFFF0000, 0x00480009, *[0xFFFF0000] * 3]
    assert coded[:12].view("<i4").tolist() == [0, 4, 8]
    assert coded[12:].view("<u4").tolist() == words


def test_codes_and_scales_by_hand() -> None:
    line = np.array([[7.5, -7.5, 0.6, 0.4, 0.0, 0.0]], dtype=np.float16)
    code = encoding("int4:g4")
    content = code.content(line, FP16, None)
    # 2 x 7.5 / 15 = 1: the largest is cut to 7, -7.5 goes to the even -8, a group of zeros to 0.
    assert content.elements.tolist() == [[7.0, -8.0, 1.0, 0.0, 0.0, 0.0]]
    coded = code.encode(content, FP16)
    assert coded.tolist() == [0x0F, 0x89, 0x88, 0x00, 0x3C, 0x00, 0x00]


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("nm:2:4", 9.0), ("nm:1:4", 4.5), ("nm:2:8", 4.75), ("nm:4:8", 9.5),
        ("int4:g128", 4.125), ("int4:g32", 4.5), ("int4:col", 4.0 + 16 / 4096),
        ("int8:g64", 8.25), ("bitmap", 1 + 16 * 0.5), ("tiled-csl", 16 + 32 / 8192),
    ],
)  # fmt: skip
def test_bits_per_element_of_fp16(name: str, bits: float) -> None:
    lines = k = 4096
    half = np.zeros((lines, k), dtype=bool)
    half[:, ::2] = True
    nbytes = encoding(name).nbytes(lines, k, FP16, half)
    assert nbytes * 8 / (lines * k) == pytest.approx(bits, rel=1e-5)
    assert encoding(name).mean_bits(FP16, 0.5) == pytest.approx(bits, rel=2e-3)


def test_int8_and_bf16_need_their_indices_too() -> None:
    assert encoding("nm:2:4").nbytes(64, 64, INT8) / 64**2 == 0.625
    assert encoding("nm:2:4").nbytes(64, 64, number_format("bf16")) / (2 * 64**2) == 0.5625


def test_the_largest_stay_and_the_earlier_of_equals() -> None:
    values = np.array([[1, -3, 3, 3, 0, 0, 0, 0, -128, 127, 1, 2]], dtype=np.int8)
    kept = keep_largest(values, 2, 4).astype(int).tolist()
    assert kept == [[0, 1, 1, 0, 1, 1, 0, 0, 1, 1, 0, 0]]
    with pytest.raises(AccelsimError, match="6 values are not whole groups of 4"):
        keep_largest(np.zeros(6), 2, 4)


def coded_nm() -> npt.NDArray[np.uint8]:
    return np.array([5, 6, 7, 8, 0x9C], dtype=np.uint8)


def changed(coded: npt.NDArray[np.uint8], at: int, byte: int) -> npt.NDArray[np.uint8]:
    coded = coded.copy()
    coded[at] = byte
    return coded


CSL = encoding("tiled-csl").encode(
    Content(np.array([[1, 0, 2, 3, 4, 5]], dtype=np.int16)), number_format("int16")
)
GROUPS = encoding("int4:g4")
SCALED = GROUPS.encode(GROUPS.content(np.ones((1, 5), np.float16), FP16, None), FP16)


@pytest.mark.parametrize(
    ("name", "coded", "k", "fmt", "text"),
    [
        ("nm:2:4", coded_nm()[:-1], 8, "int8", "4 coded bytes, but 1 lines of 8 int8 make 5"),
        ("nm:2:4", changed(coded_nm(), 4, 0x93), 8, "int8", "indices 3, 0 of group 0 of line 0 do"),
        ("nm:2:4", changed(coded_nm(), 4, 0x55), 8, "int8", "indices 1, 1 of group 0 of line 0 do"),
        (
            "nm:1:5", np.array([9, 5], np.uint8), 5, "int8",
            "index 5 of group 0 of line 0 points past its group of 5",
        ),
        ("nm:1:4", np.array([9, 0x41], np.uint8), 4, "int8", "bits behind the last index are not"),
        ("nm:2:4", coded_nm(), 7, "int8", "accepted: k padded with zeros to 8"),
        ("bitmap", np.array([], np.uint8), 8, "int8", "0 coded bytes, fewer than the bitmap of 1"),
        (
            "bitmap", np.array([0x69, 5, 6, 7], np.uint8), 8, "int8",
            "4 coded bytes, but a bitmap with 4 bits set and as many int8 make 5",
        ),
        ("bitmap", np.array([0x69, 5, 6, 7, 8], np.uint8), 6, "int8", "bits behind the last elem"),
        ("tiled-csl", CSL[:7], 6, "int16", "7 coded bytes, fewer than 2 tile offsets need"),
        ("tiled-csl", CSL[:-4], 6, "int16", "36 coded bytes, but offsets up to 8 words make 40"),
        ("tiled-csl", changed(CSL, 4, 7), 6, "int16", "tile offsets 0, 7 are not multiples of 4"),
        ("tiled-csl", changed(CSL, 0, 4), 6, "int16", "tile offsets 4, 8 are not"),
        ("tiled-csl", changed(CSL, 10, 7), 6, "int16", "word 0 of tile 0 points to line 0, k 7"),
        ("tiled-csl", changed(CSL, 10, 3), 6, "int16", "places of tile 0 do not ascend"),
        ("tiled-csl", changed(CSL, 28, 1), 6, "int16", "is not filled up with empty words at its"),
        ("tiled-csl", CSL, 6, "int8", "holds values of 16 bits, not int8; accepted: fp16, bf16"),
        ("int4:g4", SCALED[:-1], 5, "fp16", "6 coded bytes, but 1 lines of 5 fp16 make 7"),
        ("int4:g4", changed(SCALED, 2, 0x1F), 5, "fp16", "bits behind the last code are not zero"),
        ("int4:g4", changed(SCALED, 6, 0x7C), 5, "fp16", "of group 1 of line 0"),
        ("int4:g4", changed(SCALED, 4, 0xBC), 5, "fp16", "of group 0 of line 0"),
        ("int4:g4", SCALED, 5, "int8", "stands for floating point of more than 4 bits, not int8"),
    ],
)  # fmt: skip
def test_malformed_bytes_are_refused(
    name: str, coded: npt.NDArray[np.uint8], k: int, fmt: str, text: str
) -> None:
    with pytest.raises(AccelsimError) as fault:
        encoding(name).decode(coded, 1, k, number_format(fmt))
    assert text in str(fault.value)
    assert "\n" not in str(fault.value)


def test_too_many_kept_elements_and_values_beyond_a_scale() -> None:
    with pytest.raises(AccelsimError, match="group 1 of line 0 keeps 3 elements; accepted: at mo"):
        encoding("nm:2:4").encode(Content(np.array([[1, 0, 0, 0, 1, 1, 1, 0]], np.int8)), INT8)
    bf16 = number_format("bf16")
    with pytest.raises(AccelsimError, match="the scale of a group is beyond fp16"):
        GROUPS.content(bf16.encode(np.full((1, 4), 1e30)), bf16, None)
    with pytest.raises(AccelsimError, match="a value is not finite"):
        GROUPS.content(bf16.encode(np.full((1, 4), np.inf)), bf16, None)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("nm:4:2", "sparsity 4:2 keeps 4 of 2; accepted: N:M with 1 <= N <= M <= 256"),
        ("nm:0:4", "sparsity 0:4 keeps 0 of 4"),
        ("nm:1:300", "accepted: N:M with 1 <= N <= M <= 256"),
        ("int9:g8", "codes of 9 bits; accepted: int2 to int8"),
        ("int4:g130", "groups of 130; accepted: up to 128 elements of k, multiples of 128, or col"),
        ("int4:g0", "unknown encoding 'int4:g0'; accepted: nm:N:M, bitmap"),
        ("csl", "unknown encoding 'csl'"),
    ],
)
def test_encodings_that_there_are_not(name: str, text: str) -> None:
    with pytest.raises(AccelsimError) as fault:
        encoding(name)
    assert text in str(fault.value)


def test_a_form_turns_lines_where_groups_run_down_the_rows() -> None:
    line = np.array([[5, 0, 0, 6, 0, 7, 8, 0]], dtype=np.int8)
    down = CodedForm("nm:2:4", "int8", 8, 1, k_rows=True)
    across = CodedForm("nm:2:4", "int8", 1, 8, k_rows=False)
    assert (down.decode(coded_nm()) == line.T).all()
    assert (across.decode(coded_nm()) == line).all()


def test_every_family_is_listed_with_a_summary() -> None:
    assert [family.shown for family in FAMILIES] == [
        *("nm:N:M", "bitmap", "tiled-csl", "intB:gG", "intB:col"),
    ]
    assert all(family.summary for family in FAMILIES)
