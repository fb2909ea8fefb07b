"""The compiled channel is the specification in plain Python: every command and every time.

Banks, rows and columns are few and queues small, so that conflicts, full queues, merging,
forwarding, drains and refreshes in the middle of requests are the rule.
"""

from dataclasses import replace

import pytest
from dram_streams import MANY, compiled, controllers, devices, runs, singles
from hypothesis import given
from hypothesis import strategies as st

from accelsim.hw.dram import reference
from accelsim.hw.dram.catalog import device
from accelsim.hw.dram.checker import check_log
from accelsim.hw.dram.commands import Command, Scope
from accelsim.hw.dram.controller import Controller
from accelsim.hw.dram.log import CommandLog
from accelsim.hw.dram.reference import Request


def place(one, number):
    """Pseudo-channel, rank, bank group and bank of a bank's number in the channel."""
    parts = one.organization
    left, bank = divmod(number, parts.banks)
    left, group = divmod(left, parts.bank_groups)
    return *divmod(left, parts.ranks), group, bank


def both(one, controller, some, in_pieces=False):
    wanted = reference.run(one, controller, singles(some))
    log, accepted, finished = compiled(one, controller, some, in_pieces)
    return (log, accepted, finished), ([tuple(e) for e in wanted.log], *wanted[1:])


@given(st.data())
@MANY
def test_commands_and_times_are_those_of_the_specification(data):
    one, controller = data.draw(devices()), data.draw(controllers())
    found, wanted = both(one, controller, data.draw(runs(one)))
    assert found == wanted
    if one.organization.ranks == 1 or any(c.scope is Scope.OTHER_RANKS for c in one.constraints):
        rows = [(e[0], e[1], *place(one, e[2]), e[3], e[4]) for e in wanted[0]]
        assert check_log(one, CommandLog.from_rows(rows), refresh=False).ok


ONE = device("ddr4-2400")
T = ONE.timings
QUIET = Controller(refresh=False)


def told(requests, **changes):
    """Names and clocks of the commands that the specification gives, and when requests finish."""
    found = reference.run(ONE, replace(QUIET, **changes), requests)
    return [(entry.command.name, entry.clock) for entry in found.log], found.finished


def names(requests, **changes):
    return [name for name, _ in told(requests, **changes)[0]]


def test_a_read_by_hand():
    """Accepted in clock 0, its row opened in clock 1."""
    log, finished = told([Request(0, 5, 3)])
    assert log == [("ACT", 1), ("RD", 1 + T["tRCDRD"])]
    assert finished == [1 + T["tRCDRD"] + T["CL"] + T["burst_cycles"]]


def test_a_conflict_by_hand():
    log, _ = told([Request(0, 5, 3), Request(0, 6, 3, clock=500)])
    assert log[2:] == [("PRE", 501), ("ACT", 501 + T["tRP"]), ("RD", 501 + T["tRP"] + T["tRCDRD"])]


def test_a_hit_overtakes_until_the_cap():
    requests = [Request(0, 5, 0), Request(0, 6, 0), *(Request(0, 5, k) for k in range(1, 6))]
    assert names(requests, hit_cap=3) == [
        "ACT",
        *["RD"] * 3,
        *["PRE", "ACT", "RD"] * 2,
        *["RD"] * 2,
    ]
    assert names(requests, hit_cap=6) == ["ACT", *["RD"] * 6, "PRE", "ACT", "RD"]


@pytest.mark.parametrize("cap", [1, 2, 4])
def test_hits_beyond_an_older_burst_of_their_bank_end_at_the_cap(cap):
    some = [(Request(0, row, 0), 1, 1) for row in (0, 1, 0, 0, 0, 0)]
    found, wanted = both(ONE, replace(QUIET, window=3, hit_cap=cap), some)
    assert found == wanted


def test_a_write_enters_behind_the_read_that_takes_a_place_in_the_window():
    """Both wait in one ring of the FIFO; the write has waited for the read alone."""
    requests = [Request(bank, 5, 0, bank == 12) for bank in (0, 4, 8, 12, 0, 4, 8)]
    some = [(request, 1, 0) for request in requests]
    found, wanted = both(ONE, replace(QUIET, window=2), some)
    assert found == wanted
    assert found[1][2] == found[1][3] > 0


def test_a_write_waits_for_an_older_read_though_it_is_alone_in_the_buffer():
    some = [
        (Request(0, 5, 3), 1, 1),
        (Request(1, 5, 0, True), 1, 1),
        (Request(0, 5, 3, True), 1, 1),
    ]
    settings = replace(QUIET, write_buffer=1, high_watermark=1, low_watermark=0)
    found, wanted = both(ONE, settings, some)
    assert found == wanted
    assert found[1][2] == found[0][-2][0]


def test_the_last_access_to_a_row_closes_it():
    requests = [Request(0, 5, 0), Request(0, 5, 1), Request(1, 5, 0, True)]
    assert names(requests, page="closed").count("RDA") == 1
    assert names(requests, page="closed")[-1] == "WRA"
    assert names(requests, page="open").count("RD") == 2


def test_writes_merge_and_reads_are_forwarded():
    requests = [Request(0, 5, 0, True), Request(0, 5, 0), Request(0, 5, 0, True)]
    log, finished = told(requests)
    assert [name for name, _ in log] == ["ACT", "WR"]
    assert finished == [1, 1, 1]


def test_a_write_waits_for_an_older_read_of_its_address():
    log, finished = told([Request(0, 5, 0), Request(0, 5, 0, True)])
    assert finished[1] == dict(log)["RD"] + 1


def test_writes_drain_between_the_watermarks():
    reads = [Request(k, 5, 0) for k in range(4)]
    writes = [Request(4 + k, 5, 0, True) for k in range(4)]
    few = names([*writes[:3], *reads], high_watermark=4, low_watermark=1)
    drained = names([*writes, *reads], high_watermark=4, low_watermark=1)
    columns = [[name for name in some if name in ("RD", "WR")] for some in (few, drained)]
    assert columns == [[*["RD"] * 4, *["WR"] * 3], [*["WR"] * 3, *["RD"] * 4, "WR"]]


def test_a_refresh_closes_banks_and_comes_first():
    due = ONE.refresh.interval_cycles
    requests = [Request(0, 5, 0), Request(0, 5, 1, clock=due)]
    log, _ = told(requests, refresh=True)
    again = due + T["tRP"] + ONE.refresh.all_bank_cycles
    assert log[2:] == [
        ("PRE", due),
        ("REFAB", due + T["tRP"]),
        ("ACT", again),
        ("RD", again + T["tRCDRD"]),
    ]


def test_requests_enter_one_by_one_where_the_port_is_narrow():
    found = reference.run(
        ONE, replace(QUIET, accepts_per_clock=1), [Request(0, 5, k) for k in (0, 1)]
    )
    assert found.accepted == [0, 1]


def test_two_command_buses_carry_a_row_and_a_column_in_one_clock():
    """Hits of one bank every tCCD_L; in a clock of one of them another bank is to be opened."""
    one = device("hbm2")
    hits = [Request(0, 5, k) for k in range(8)]
    last = reference.run(one, QUIET, hits).log[-1].clock
    some = [(request, 1, 0) for request in (*hits, Request(20, 5, 0, clock=last - 1))]
    found, wanted = both(one, QUIET, some)
    assert found == wanted
    shared = [entry[1:3] for entry in found[0] if entry[0] == last]
    assert shared == [(Command.RD, 0), (Command.ACT, 20)]


def test_a_refresh_comes_before_the_row_command_of_an_older_request():
    """Rank 0 is to be closed for its refresh in the clock in which a bank of rank 1 may open."""
    one = replace(ONE, organization=replace(ONE.organization, ranks=2))
    due = one.refresh.interval_cycles // 2
    requests = [Request(0, 5, 0), Request(16, 5, 0, clock=due - 1)]
    found, wanted = both(one, Controller(), [(request, 1, 0) for request in requests])
    assert found == wanted
    assert found[0][2:4] == [(due, Command.PRE, 0, 5, 0), (due + 1, Command.ACT, 16, 5, 0)]
