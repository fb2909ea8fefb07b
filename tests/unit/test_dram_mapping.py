"""Address maps: every address has one place, every place one address; strings say what is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.errors import AccelsimError
from accelsim.hw.dram.device import Organization
from accelsim.hw.dram.mapping import FIELDS, AddressMap

SMALL = Organization(
    pseudo_channels=2, ranks=2, bank_groups=4, banks=2, rows=6, columns=4, column_bytes=32
)
WORDS = [field for field in FIELDS if field != "pc"]


def numbered(place) -> int:
    """Number of a bank in its channel."""
    bank = (place[4] * SMALL.ranks + place[1]) * SMALL.bank_groups + place[2]
    return int(bank * SMALL.banks + place[3])


@given(
    st.permutations(WORDS).flatmap(
        lambda words: st.sampled_from(
            [
                words,
                [*words, "pc"],
                ["pc", *words],
                [*words, "co2"],
                [*(word for word in words if word != "bg"), "co2", "bg"],
            ]
        )
    ),
    st.integers(1, 5),
    st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_addresses_and_places_are_one_to_one_and_the_compiled_form_agrees(
    words: list[str], channels: int, hashing: bool
) -> None:
    from accelsim.hw.dram.mapping_kernels import lane_banks, locate, sweeps

    made = AddressMap.of("".join(words), SMALL, channels, hashing)
    bursts = np.arange(made.capacity_bytes // SMALL.column_bytes)
    places = made.locate(bursts * SMALL.column_bytes + 7)
    assert len(set(zip(*(p.tolist() for p in places), strict=True))) == len(bursts)
    for digit, size in zip(places, made.sizes, strict=True):
        assert digit.min() == 0
        assert digit.max() == size - 1
    scratch, compiled = np.zeros(len(FIELDS) + 1, np.int64), made.compiled
    banks = np.zeros(SMALL.bank_groups, np.int64)
    for burst in bursts[:: max(1, len(bursts) // 50)].tolist():
        channel, bank, row, column, run = locate(compiled, burst, scratch)
        p = [int(part[burst]) for part in places]
        inside = numbered(p)
        assert (channel, bank, row, column) == (p[5], inside, p[0], p[6])
        ahead = [tuple(int(part[burst + k]) for part in places) for k in range(run)]
        here = lane_banks(compiled, scratch, banks) if compiled.lanes > 1 else 1
        for k, place in enumerate(ahead):
            turns, lane = divmod(k, compiled.lanes)
            assert numbered(place) == (banks[lane] if compiled.lanes > 1 else inside)
            assert (place[0], place[5]) == (row, channel)
            assert place[6] == column + turns + (lane >= here)
        visits = sweeps(compiled, burst, len(bursts) - burst, scratch)
        every = range(burst, burst + visits * compiled.sweep)
        met = {(int(places.channel[k]), int(places.pseudo_channel[k])) for k in every}
        assert not visits or len(met) == channels * SMALL.pseudo_channels
        for one in met:
            mine = [
                (int(places.row[k]), int(places.column[k]))
                for k in every
                if (places.channel[k], places.pseudo_channel[k]) == one
            ]
            wanted = [(row, column + j // compiled.lanes) for j in range(len(mine))]
            assert mine == wanted
            assert len(mine) == visits * compiled.run * compiled.lanes


def test_fields_read_from_the_most_significant() -> None:
    made = AddressMap.of("RoBaRaBgCoCh", SMALL, 2)
    at = made.locate([0, 32, 64, 128, 4 * 128])
    # Without pc the pseudo-channel is the lowest part of ch.
    assert at.pseudo_channel.tolist() == [0, 1, 0, 0, 0]
    assert at.channel.tolist() == [0, 0, 1, 0, 0]
    assert at.column.tolist() == [0, 0, 0, 1, 0]
    assert at.bank_group.tolist() == [0, 0, 0, 0, 1]


def test_bank_groups_are_the_low_part_of_banks_unless_named() -> None:
    made = AddressMap.of("RoBaRaCoCh", SMALL, 1)
    assert made.order == AddressMap.of("RoBaBgRaCoChPc", SMALL, 1).order


def test_hashing_spreads_power_of_two_strides_over_channels() -> None:
    stride = 32 * 4 * 4 * 4 * 2  # columns, groups, channels and pseudo-channels
    plain, hashed = (AddressMap.of("RoRaBaChCoBg", SMALL, 4, hashing) for hashing in (0, 1))
    addresses = np.arange(16) * stride
    assert len(set(plain.locate(addresses).channel.tolist())) == 1
    assert len(set(hashed.locate(addresses).channel.tolist())) == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("RoBaBgCo", "does not cover the address: ra (rank), ch (channel) missing"),
        ("RoBaRaCoChBgRo", "names ro (row) twice"),
        ("RoBaRaCoChXx", "unknown field 'xx'"),
        ("8RoBaRaCoCh", "unknown field '8'"),
        ("RoBaRaCoCh\u0668", "unknown field '\u0668'"),
        ("", "does not cover the address"),
    ],
)
def test_a_bad_string_is_one_clear_line(text: str, message: str) -> None:
    with pytest.raises(AccelsimError) as fault:
        AddressMap.of(text, SMALL, 1)
    assert message in str(fault.value)
    assert "accepted" in str(fault.value)


def test_no_channels_and_addresses_outside_are_refused() -> None:
    with pytest.raises(AccelsimError, match="0 channels; accepted: 1 or more"):
        AddressMap.of("RoBaRaBgCoCh", SMALL, 0)
    made = AddressMap.of("RoBaRaBgCoCh", SMALL, 1)
    with pytest.raises(AccelsimError, match="outside the memory; accepted: 0 to 0x5fff"):
        made.locate([made.capacity_bytes])
