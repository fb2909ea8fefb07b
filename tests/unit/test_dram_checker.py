"""The command-log checker: real logs are clean, every injected violation is found, no other is.

The oracle below is the definition of a constraint, word by word, without any cleverness.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelsim.errors import AccelsimError
from accelsim.hw.dram import checker
from accelsim.hw.dram.catalog import device
from accelsim.hw.dram.checker import Verdict, check_log
from accelsim.hw.dram.commands import Command, Scope
from accelsim.hw.dram.device import Constraint, Device
from accelsim.hw.dram.dramsim3_ini import import_dramsim3
from accelsim.hw.dram.log import CommandLog, read_log, write_log

DATA = Path(__file__).parent / "data/dramsim3"
LOGS = sorted(DATA.glob("*.txt.gz"))

C = Command
Row = tuple[int, ...]


def of_file(log: Path) -> tuple[Device, CommandLog]:
    config = log.name.split("_refon")[0] + "_refon.ini"
    return import_dramsim3(DATA / config).device, read_log(log)


def rules_of(verdict: Verdict) -> Counter[str]:
    return Counter(one.rule for one in verdict.violations)


def log_of(*rows: tuple[int, Command, int, int, int]) -> CommandLog:
    """A log of (cycle, command, bank group, bank, row), all else zero."""
    return CommandLog.from_rows((t, int(c), 0, 0, g, b, row, 0) for t, c, g, b, row in rows)


# -- the oracle ------------------------------------------------------------------------------------


def covered(one: Device, row: Row) -> Iterator[tuple[int, int]]:
    parts, command = one.organization, row[1]
    step = parts.bank_groups // one.refresh.groups_per_command
    for g in range(parts.bank_groups):
        for b in range(parts.banks):
            if command in (C.REFAB, C.PREAB):
                yield g, b
            elif command == C.REFPB:
                if b == row[5] and g % step == row[4] % step:
                    yield g, b
            elif (g, b) == row[4:6]:
                yield g, b


def instances(one: Device, row: Row, scope: Scope) -> set[tuple[int, ...]]:
    pc, rank = row[2:4]
    if scope is Scope.BANK:
        return {(pc, rank, g, b) for g, b in covered(one, row)}
    if scope is Scope.BANK_GROUP:
        return {(pc, rank, g) for g, _ in covered(one, row)}
    if scope is Scope.OTHER_RANKS:
        return {(pc, r) for r in range(one.organization.ranks) if r != rank}
    return {{Scope.RANK: (pc, rank), Scope.PSEUDO_CHANNEL: (pc,), Scope.CHANNEL: ()}[scope]}


def broken_by_definition(one: Device, log: CommandLog) -> Counter[tuple[Constraint, int]]:
    rows = list(log.rows())
    found: Counter[tuple[Constraint, int]] = Counter()
    for rule in one.constraints:
        home = Scope.RANK if rule.scope is Scope.OTHER_RANKS else rule.scope
        for i, after in enumerate(rows):
            if after[1] != rule.after:
                continue
            for place in instances(one, after, rule.scope):
                before = [
                    row for row in rows[:i]
                    if row[1] == rule.before and place in instances(one, row, home)
                ]  # fmt: skip
                late = len(before) >= rule.window
                if late and after[0] - before[-rule.window][0] < rule.cycles:
                    found[rule, i] += 1
                    break
    return found


@st.composite
def random_logs(draw: st.DrawFn) -> tuple[Device, CommandLog]:
    """Any commands on a small part of a device, with gaps about as long as its constraints."""
    name = draw(st.sampled_from(["ddr4-2400", "ddr5-4800", "lpddr5-6400", "hbm3", "gddr6"]))
    one = device(name)
    parts = replace(one.organization, ranks=2, rows=2)
    one = replace(one, organization=parts)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, longest = draw(st.integers(2, 40)), draw(st.sampled_from([3, 12, 60]))
    columns = [
        np.cumsum(rng.integers(0, longest, n)), rng.integers(0, len(Command), n),
        rng.integers(0, parts.pseudo_channels, n), rng.integers(0, 2, n),
        rng.integers(0, parts.bank_groups, n), rng.integers(0, 2, n), rng.integers(0, 2, n),
        np.zeros(n, np.int64),
    ]  # fmt: skip
    return one, CommandLog(*columns)


@given(random_logs())
@settings(max_examples=150, deadline=None)
def test_constraints_are_found_exactly_as_defined(case: tuple[Device, CommandLog]) -> None:
    one, log = case
    verdict = check_log(one, log, refresh=False, limit=100_000)
    found = Counter(
        (v.constraint, v.second) for v in verdict.violations if v.constraint is not None
    )
    assert found == broken_by_definition(one, log)


# -- real logs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", LOGS, ids=[file.stem for file in LOGS])
def test_logs_of_dramsim3_are_clean(file: Path) -> None:
    one, log = of_file(file)
    verdict = check_log(one, log)
    assert verdict.ok, verdict.violations[:3]
    assert verdict.commands == len(log) > 1000


def binding_pairs(one: Device, log: CommandLog) -> list[tuple[Constraint, int]]:
    """Constraints that a log meets exactly: what breaks when each asks for one clock more."""
    wider = {replace(rule, cycles=rule.cycles + 1): rule for rule in one.constraints}
    stricter = replace(one, constraints=tuple(wider))
    found = check_log(stricter, log, refresh=False, limit=100_000).violations
    return [(wider[v.constraint], v.second) for v in found if v.constraint is not None]


@pytest.mark.parametrize("file", LOGS, ids=[file.stem for file in LOGS])
def test_every_command_that_comes_a_clock_too_early_is_found(file: Path) -> None:
    one, log = of_file(file)
    pairs = binding_pairs(one, log)
    kinds = {rule.name for rule, _ in pairs}
    assert len(kinds) >= 3
    rng = np.random.default_rng(7)
    chosen = rng.choice(len(pairs), min(60, len(pairs)), replace=False)
    tried = 0
    for rule, index in (pairs[i] for i in chosen):
        if log.cycle[index - 1] == log.cycle[index]:
            continue  # a command of the other bus stands there: the order would change
        cycle = log.cycle.copy()
        cycle[index] -= 1
        verdict = check_log(one, replace(log, cycle=cycle), refresh=False)
        assert any(v.constraint == rule and v.second == index for v in verdict.violations)
        tried += 1
    assert tried >= 30


def without(log: CommandLog, index: int) -> CommandLog:
    return CommandLog(*(np.delete(getattr(log, one.name), index) for one in fields(log)))


def changed(log: CommandLog, column: str, index: int, value: int) -> CommandLog:
    values = getattr(log, column).copy()
    values[index] = value
    return replace(log, **{column: values})


def swapped(log: CommandLog, a: int, b: int) -> CommandLog:
    """The two commands change places, clocks stay."""
    columns = {}
    for one in fields(log):
        values = getattr(log, one.name).copy()
        if one.name != "cycle":
            values[[a, b]] = values[[b, a]]
        columns[one.name] = values
    return CommandLog(**columns)


@pytest.mark.parametrize("file", LOGS, ids=[file.stem for file in LOGS])
def test_dropped_and_misdirected_commands_are_found(file: Path) -> None:
    one, log = of_file(file)
    rng = np.random.default_rng(3)

    def some(command: Command, count: int) -> list[int]:
        at = np.flatnonzero(log.command == command)
        return rng.choice(at, min(count, len(at)), replace=False).tolist()

    for index in some(C.ACT, 10):
        assert rules_of(check_log(one, without(log, index), refresh=False))
        row = int(log.row[index]) ^ 1
        again = check_log(one, changed(log, "row", index, row), refresh=False)
        assert "RD and WR need the open row" in rules_of(again)
    for index in some(C.PRE, 10):
        later = (log.bank == log.bank[index]) & (log.bank_group == log.bank_group[index])
        if np.any(later[index + 1 :] & (log.command[index + 1 :] == C.ACT)):
            found = rules_of(check_log(one, without(log, index), refresh=False))
            assert {"ACT needs a precharged bank", "REF needs precharged banks"} & found.keys()
    for index in some(C.RD, 5):
        mine = (log.bank == log.bank[index]) & (log.bank_group == log.bank_group[index])
        opened = int(np.flatnonzero((log.command == C.ACT)[:index] & mine[:index])[-1])
        assert not check_log(one, swapped(log, opened, index), refresh=False).ok


# -- rules beyond the list -------------------------------------------------------------------------


def test_a_bank_is_opened_once_and_read_while_open() -> None:
    one = device("ddr4-2400")
    far = 10_000
    for rows, rule in (
        ([(0, C.ACT, 0, 0, 5), (far, C.ACT, 0, 0, 6)], "ACT needs a precharged bank"),
        ([(far, C.RD, 0, 0, 5)], "RD and WR need an open row"),
        ([(0, C.ACT, 0, 0, 5), (far, C.WR, 0, 0, 6)], "RD and WR need the open row"),
        ([(0, C.ACT, 0, 0, 5), (far, C.REFAB, 0, 0, 0)], "REF needs precharged banks"),
        (
            [(0, C.ACT, 0, 0, 5), (99, C.PRE, 0, 0, 0), (far, C.RDA, 0, 0, 5)],
            "RD and WR need an open row",
        ),
        (
            [(0, C.ACT, 0, 0, 5), (99, C.RDA, 0, 0, 5), (far, C.WR, 0, 0, 5)],
            "RD and WR need an open row",
        ),
        (
            [(0, C.ACT, 1, 1, 5), (99, C.PREAB, 0, 0, 0), (far, C.RD, 1, 1, 5)],
            "RD and WR need an open row",
        ),
    ):
        verdict = check_log(one, log_of(*rows), refresh=False)
        assert rules_of(verdict) == {rule: 1}
        assert verdict.total == 1
        assert verdict.rules == [rule]


def test_a_same_bank_refresh_needs_and_closes_its_banks_of_all_groups() -> None:
    one = device("ddr5-4800")
    opened = (0, C.ACT, 5, 2, 1)
    for group, bank, wrong in ((0, 2, True), (5, 2, True), (0, 1, False)):
        verdict = check_log(one, log_of(opened, (9000, C.REFPB, group, bank, 0)), refresh=False)
        assert (rules_of(verdict) == {"REF needs precharged banks": 1}) is wrong
        assert verdict.ok is not wrong


def test_a_refresh_of_a_pair_reaches_two_bank_groups_on() -> None:
    one = device("lpddr5-6400")
    for group, wrong in ((1, True), (3, True), (0, False), (2, False)):
        log = log_of((0, C.ACT, 3, 2, 1), (9000, C.REFPB, group, 2, 0))
        assert check_log(one, log, refresh=False).ok is not wrong


def test_one_command_per_clock_and_bus() -> None:
    rows = [(0, C.ACT, 0, 0, 1), (40, C.ACT, 1, 0, 1), (90, C.RD, 0, 0, 1), (90, C.PRE, 1, 0, 0)]
    assert rules_of(check_log(device("ddr4-2400"), log_of(*rows), refresh=False)) == {
        checker.BUS: 1
    }
    assert check_log(device("hbm2"), log_of(*rows), refresh=False).ok
    twice = [*rows[:3], (90, C.RD, 1, 0, 1)]
    assert checker.BUS in rules_of(check_log(device("hbm2"), log_of(*twice), refresh=False))


def test_bursts_do_not_overlap_on_the_data_bus() -> None:
    bare = replace(device("ddr4-2400"), constraints=())  # only the bus is left to object
    opened = [(0, C.ACT, 0, 0, 1), (10, C.ACT, 1, 0, 1)]

    def clashes(*rows: tuple[int, Command, int, int, int]) -> bool:
        found = rules_of(check_log(bare, log_of(*opened, *rows), refresh=False))
        assert found.keys() <= {checker.DATA}
        return bool(found)

    assert clashes((50, C.RD, 0, 0, 1), (53, C.RD, 1, 0, 1))
    assert not clashes((50, C.RD, 0, 0, 1), (54, C.RD, 1, 0, 1))
    # CL 17, CWL 12: data of a read at 50 from 67, of a write at 55 from 67.
    assert clashes((50, C.RD, 0, 0, 1), (58, C.WR, 1, 0, 1))
    assert not clashes((50, C.RD, 0, 0, 1), (59, C.WR, 1, 0, 1))
    assert clashes((50, C.RD, 0, 0, 1), (52, C.WR, 1, 0, 1))


def refreshes(one: Device, times: list[int]) -> CommandLog:
    return log_of(*((t, C.REFAB, 0, 0, 0) for t in times))


def test_refreshes_come_in_time() -> None:
    one = device("ddr4-2400")
    interval = one.refresh.interval_cycles
    steady = [interval * (i + 1) for i in range(30)]
    assert check_log(one, refreshes(one, steady)).ok
    assert not check_log(one, log_of((10 * interval, C.ACT, 0, 0, 0))).ok
    assert check_log(one, log_of((10 * interval, C.ACT, 0, 0, 0)), refresh=False).ok

    # Eight may be postponed and made up for; a ninth may not.
    def postponed(n: int) -> list[int]:
        first = (n + 1) * interval
        return [first + i * one.refresh.all_bank_cycles for i in range(n + 1)] + [
            interval * (i + 1) for i in range(n + 1, 30)
        ]

    assert check_log(one, refreshes(one, postponed(8))).ok
    found = rules_of(check_log(one, refreshes(one, postponed(9))))
    assert found == {checker.INTERVAL: 1, checker.DEBT: 2}  # two are owed at 10 tREFI
    # Gaps of two intervals never exceed nine, but the debt grows.
    slow = [2 * interval * (i + 1) for i in range(20)]
    assert set(rules_of(check_log(one, refreshes(one, slow)))) == {checker.DEBT}
    # The end of the run counts, too.
    assert check_log(one, refreshes(one, steady), end_cycle=38 * interval).ok
    late = check_log(one, refreshes(one, steady), end_cycle=40 * interval)
    assert set(rules_of(late)) == {checker.INTERVAL, checker.DEBT}


def test_where_banks_are_refreshed_each_of_them_is() -> None:
    one = device("gddr6")
    parts, refresh = one.organization, one.refresh
    banks = [(g, b) for g in range(parts.bank_groups) for b in range(parts.banks)]
    step = refresh.per_bank_interval_cycles
    rows = [(step * (i + 1), C.REFPB, *banks[i % 16], 0) for i in range(16 * 20)]
    assert check_log(one, log_of(*rows)).ok
    never = [row for row in rows if row[2:4] != (2, 3)]
    found = rules_of(check_log(one, log_of(*never)))
    assert set(found) == {checker.INTERVAL, checker.DEBT}
    # One refresh of the whole rank stands for all its banks.
    rows.append((rows[-1][0] + 1000, C.REFAB, 0, 0, 0))
    assert check_log(one, log_of(*rows)).ok


def test_a_round_of_banks_may_be_shorter_than_trefi() -> None:
    """DDR5 refreshes single banks in fine granularity: two rounds per tREFI, and debt in rounds."""
    one = device("ddr5-4800")
    parts, refresh = one.organization, one.refresh
    banks = [(0, b) for b in range(parts.banks)]  # of all groups at once
    step = refresh.per_bank_interval_cycles
    assert len(banks) * step < 0.6 * refresh.interval_cycles

    def slowed(factor: int) -> CommandLog:
        rows = range(20 * len(banks))
        return log_of(
            *((factor * step * (i + 1), C.REFPB, *banks[i % len(banks)], 0) for i in rows)
        )

    assert check_log(one, slowed(1)).ok
    assert set(rules_of(check_log(one, slowed(2)))) == {checker.DEBT}


def test_a_log_out_of_order_or_out_of_range_is_refused() -> None:
    one = device("ddr4-2400")
    backwards = check_log(one, log_of((5, C.ACT, 0, 0, 1), (4, C.PRE, 0, 0, 0)))
    assert rules_of(backwards) == {checker.ORDER: 1}
    for rows in (
        [(0, C.ACT, 4, 0, 1)], [(0, C.ACT, 0, 4, 1)], [(0, C.ACT, 0, 0, 65536)],
        [(0, C.ACT, 0, -1, 0)],
    ):  # fmt: skip
        verdict = check_log(one, log_of(*rows))
        assert rules_of(verdict) == {checker.RANGE: 1}
    wrong_rank = CommandLog.from_rows([(0, int(C.REFAB), 0, 1, -1, -1, -1, -1)])
    assert rules_of(check_log(one, wrong_rank)) == {checker.RANGE: 1}
    assert check_log(one, log_of(), refresh=True).ok


def test_a_violation_reads_like_a_sentence() -> None:
    verdict = check_log(
        device("ddr4-2400"), log_of((0, C.ACT, 0, 1, 5), (16, C.RD, 0, 1, 5)), refresh=False
    )
    assert [str(one) for one in verdict.violations] == [
        "tRCD: ACT to RD of a bank: 17 cycles: 16 cycles between ACT at 0 (pseudo-channel 0, "
        "rank 0, group 0, bank 1, row 5, column 0), then RD at 16 (pseudo-channel 0, rank 0, "
        "group 0, bank 1, row 5, column 0)"
    ]


def test_only_the_first_violations_are_kept_but_all_are_counted() -> None:
    rows = [(i, C.RD, 0, 0, 0) for i in range(50)]
    verdict = check_log(device("ddr4-2400"), log_of(*rows), refresh=False, limit=3)
    assert verdict.total >= 50 + 49
    assert len(verdict.violations) <= 4 * 3


# -- text ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.log", "a.log.gz"])
def test_a_log_is_written_and_read_back(tmp_path: Path, name: str) -> None:
    _, log = of_file(LOGS[0])
    write_log(tmp_path / name, log)
    again = read_log(tmp_path / name)
    assert list(again.rows()) == list(log.rows())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 ACT 0 0 0", ":2: 5 words; accepted: cycle command pseudo_channel rank"),
        ("1 OPEN 0 0 0 0 0 0", ":2: unknown command 'OPEN'; accepted: act, activate"),
        ("1 ACT 0 0 0 x 0 0", ":2: not a number among"),
    ],
)
def test_a_line_that_is_no_command_is_named(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "a.log"
    file.write_text(f"# comment\n{line}\n")
    with pytest.raises(AccelsimError) as fault:
        read_log(file)
    assert str(fault.value).removeprefix(str(file)).startswith(message)


def test_columns_of_a_log_have_one_length() -> None:
    _, log = of_file(LOGS[0])
    with pytest.raises(AccelsimError, match="differ in length"):
        replace(log, row=log.row[1:])


# -- the tests above can fail ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "weaker",
    [
        lambda rule: replace(rule, cycles=rule.cycles - 1),
        lambda rule: replace(rule, window=rule.window + 1),
        lambda rule: replace(rule, scope=Scope.BANK) if rule.scope is Scope.RANK else rule,
    ],
    ids=["a clock less", "a longer window", "a narrower scope"],
)
def test_a_weaker_list_misses_violations(weaker: Callable[[Constraint], Constraint]) -> None:
    one = device("ddr4-2400")
    less = replace(one, constraints=tuple(map(weaker, one.constraints)))
    rows = [(4 * i - (i == 4), C.ACT, i % 4, i // 4, 0) for i in range(6)]
    strict = check_log(one, log_of(*rows), refresh=False).total
    assert check_log(less, log_of(*rows), refresh=False).total < strict
