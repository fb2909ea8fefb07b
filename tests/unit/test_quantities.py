"""Quantities are read exactly, refused clearly and shown in the unit that suits them."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accelsim.errors import AccelsimError
from accelsim.quantities import (
    BYTES,
    BYTES_PER_SECOND,
    CYCLES,
    HERTZ,
    LARGEST,
    PICOJOULES,
    PICOJOULES_PER_BYTE,
    SECONDS,
    Bytes,
    Quantity,
    Seconds,
    closest,
    quantity_of,
)

READ = [
    (BYTES, "64 MiB", 64 * 2**20),
    (BYTES, "64 kB", 64_000),
    (BYTES, "64KiB", 65_536),
    (BYTES, " 1.5 GiB ", 3 * 2**29),
    (BYTES, "0.3 kB", 300),
    (BYTES, "1_000 B", 1000),
    (BYTES, "1e9", 10**9),
    (BYTES, "2.5e3 kB", 2_500_000),
    (BYTES, 4096, 4096),
    (BYTES, 4096.0, 4096),
    (BYTES_PER_SECOND, "900 GB/s", 900 * 10**9),
    (BYTES_PER_SECOND, "1.2 TB/s", 1_200 * 10**9),
    (BYTES_PER_SECOND, "478.7 GB/s", 478_700_000_000),
    (BYTES_PER_SECOND, "1 GiB/s", 2**30),
    (HERTZ, "940 MHz", 940_000_000),
    (HERTZ, "1.066667 GHz", 1_066_667_000),
    (SECONDS, "120 ns", 120e-9),
    (SECONDS, "1.5 µs", 1.5e-6),
    (SECONDS, 0, 0.0),
    (CYCLES, "8 cycles", 8),
    (PICOJOULES, "590 fJ", 0.59),
    (PICOJOULES_PER_BYTE, "3.9 pJ/bit", 31.2),
]


@pytest.mark.parametrize(("quantity", "text", "value"), READ)
def test_reads_exactly(quantity: Quantity, text: object, value: float) -> None:
    found = quantity.parse(text)
    assert found == value
    assert type(found) is (int if quantity.whole else float)


REFUSED = [
    (BYTES, "64 MiBs", "unknown unit 'MiBs' for bytes; did you mean 'MiB'? accepted: a number"),
    (BYTES, "64 KB", "unknown unit 'KB'"),
    (BYTES, "0.1 B", "'0.1 B' is not a whole number of bytes"),
    (BYTES, 1.5, "1.5 is not a whole number of bytes"),
    (BYTES, "lots", "'lots' is not a quantity"),
    (BYTES, "", "'' is not a quantity"),
    (BYTES, True, "True is not a quantity"),
    (BYTES, None, "None is not a quantity"),
    (BYTES, [1], "is not a quantity"),
    (BYTES, float("nan"), "not finite"),
    (BYTES, "1e30 B", "too large"),
    (BYTES, "1" * 5000, "not a quantity"),
    (BYTES_PER_SECOND, "32 B/cycle", "unknown unit 'B/cycle' for bytes/s"),
    (BYTES_PER_SECOND, "900 GB", "did you mean 'GB/s'?"),
    (HERTZ, "940 MHZ", "did you mean 'MHz'?"),
    (HERTZ, "0.5 Hz", "not a whole number of Hz"),
    (SECONDS, float("inf"), "not finite"),
    (SECONDS, "1e999 s", "too large"),
]


@pytest.mark.parametrize(("quantity", "value", "message"), REFUSED)
def test_refuses_with_what_is_accepted(quantity: Quantity, value: object, message: str) -> None:
    with pytest.raises(AccelsimError) as fault:
        quantity.parse(value)
    assert message in str(fault.value)
    assert "\n" not in str(fault.value)


def test_unknown_unit_names_every_accepted_unit() -> None:
    with pytest.raises(AccelsimError, match=r"accepted: a number with one of Hz, kHz, MHz, GHz$"):
        HERTZ.parse("3 rpm")


@pytest.mark.parametrize(
    ("quantity", "value", "text"),
    [
        (BYTES, 2**34, "16 GiB"),
        (BYTES, 65_536, "64 KiB"),
        (BYTES, 64_000, "64 kB"),
        (BYTES, 3 * 2**29, "1.5 GiB"),
        (BYTES, 0, "0 B"),
        (BYTES, 33, "33 B"),
        (BYTES_PER_SECOND, 478_700_000_000, "478.7 GB/s"),
        (BYTES_PER_SECOND, 1_200 * 10**9, "1.2 TB/s"),
        (HERTZ, 940_000_000, "940 MHz"),
        (HERTZ, 10**9, "1 GHz"),
        (HERTZ, 533_333_333, "533.333 MHz"),
        (SECONDS, 120e-9, "120 ns"),
        (SECONDS, 5e-13, "0.5 ps"),
        (SECONDS, 0.0, "0 s"),
        (PICOJOULES_PER_BYTE, 31.2, "31.2 pJ/B"),
    ],
)
def test_shows_the_suiting_unit(quantity: Quantity, value: float, text: str) -> None:
    assert quantity.format(value) == text


@given(st.integers(1, 999_999), st.sampled_from(["B", "kB", "MB", "GB", "KiB", "MiB", "GiB"]))
def test_what_is_shown_reads_back(number: int, unit: str) -> None:
    value = BYTES.parse(f"{number} {unit}")
    shown = BYTES.parse(BYTES.format(value))
    assert abs(shown - value) <= value * 5e-6


@given(st.integers(-LARGEST, LARGEST))
def test_plain_numbers_are_base_units(number: int) -> None:
    assert BYTES.parse(number) == number
    assert BYTES.parse(str(number)) == number


@given(st.text(max_size=20))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = SECONDS.parse(text)
    except AccelsimError:
        return
    assert math.isfinite(found)


def test_nearest_word() -> None:
    assert closest("dataflw", ["rows", "dataflow"]) == "dataflow"
    assert closest("ROWS", ["rows", "cols"]) == "rows"
    assert closest("bandwidth_gbps", ["bandwidth", "banks"]) == "bandwidth"
    assert closest("zzz", ["rows", "cols"]) is None


def test_quantity_of_an_annotation() -> None:
    assert quantity_of(Bytes) is BYTES
    assert quantity_of(Seconds) is SECONDS
    assert quantity_of(int) is None
    assert quantity_of(Annotated[int, "something else"]) is None


def test_validates_as_a_pydantic_type() -> None:
    from pydantic import TypeAdapter, ValidationError

    adapter: TypeAdapter[tuple[int, ...]] = TypeAdapter(tuple[Bytes, ...])
    assert adapter.validate_json('["1 KiB", 3]', strict=True) == (1024, 3)
    with pytest.raises(ValidationError, match="did you mean 'KiB'"):
        adapter.validate_json('["1 KiBs {x}"]', strict=True)


def test_blocks_import_neither_pydantic_nor_yaml() -> None:
    code = (
        "import sys, accelsim.hw.sram, accelsim.arch;"
        "sys.exit(any(name in sys.modules for name in ('pydantic', 'yaml')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
