"""Every constraint of every family: too early at its cycles less one, in time at its cycles."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from accelsim.hw.dram.commands import Command, Scope
from accelsim.hw.pim.catalog import family, list_families
from accelsim.hw.pim.channel.checker import check_log
from accelsim.hw.pim.channel.log import PimLog
from accelsim.hw.pim.channel.stream import PimStream
from accelsim.hw.pim.family import Family, PimConstraint

COLUMNS = 9  # of a composite or a run


def asked(found: Family) -> dict[tuple[int, int], list[PimConstraint]]:
    """Constraints that hold between two commands to the same bank, by their pair."""
    pairs: dict[tuple[int, int], list[PimConstraint]] = defaultdict(list)
    for one in found.all_constraints():
        if one.window == 1 and one.scope is not Scope.OTHER_RANKS:
            pairs[one.before, one.after].append(one)
    return pairs


def gap(found: Family, rules: list[PimConstraint]) -> int:
    """Clocks from the (last) earlier command to the later one."""
    before = found.commands[rules[0].before]
    times = COLUMNS if before.repeat != "once" else 1
    run = (times - 1) * before.step if before.repeat == "run" else 0
    return max(
        one.cycles + one.each * max(times, one.least) - (run if one.each else 0) for one in rules
    )


@pytest.mark.parametrize("name", list_families())
def test_the_compiled_channel_waits_as_long_as_the_list_says(name: str) -> None:
    from accelsim.hw.pim.channel import state
    from accelsim.hw.pim.channel.issue_kernels import issue, ready_at

    found = family(name)
    bank, start = found.banks // 2 + 1, 5000
    for (before, after), rules in asked(found).items():
        k = state.channels(found, [PimStream.of([])])
        times = COLUMNS if found.commands[before].repeat != "once" else 1
        last = issue(k, 0, before, bank, 3, times, times, times, start, start)
        assert ready_at(k, 0, after, bank) == max(0, last + gap(found, rules)), rules


def log_of(found: Family, before: int, after: int, bank: int, clocks: int) -> PimLog:
    command = found.commands[before]
    times = COLUMNS if command.repeat != "once" else 1
    sent = [(100, before, 0, bank, 3, times)]
    if command.repeat == "run":
        sent = [(100 + n * command.step, before, 0, bank, 3, times - n) for n in range(times)]
    sent.append((sent[-1][0] + clocks, after, 0, bank, 3, 1))
    return PimLog.of(np.array(sent, np.int64))


@pytest.mark.parametrize("name", list_families())
def test_the_checker_sees_every_constraint(name: str) -> None:
    found = family(name)
    bank = found.banks // 2 + 1
    for (before, after), rules in asked(found).items():
        least = gap(found, rules)
        names = {one.name for one in rules}
        early = check_log(found, log_of(found, before, after, bank, least - 1), refresh=False)
        assert early.rules & names, rules
        late = check_log(found, log_of(found, before, after, bank, least), refresh=False)
        assert not late.rules & names, rules


def test_ranks_that_share_a_bus_are_kept_apart() -> None:
    found = family("neupims")
    sent = [(100, Command.RD, 0, 0, 3, 1), (103, Command.RD, 0, 20, 3, 1)]
    verdict = check_log(found, PimLog.of(np.array(sent, np.int64)), refresh=False)
    assert "tRTRS" in verdict.rules
    sent[1] = (104, *sent[1][1:])
    verdict = check_log(found, PimLog.of(np.array(sent, np.int64)), refresh=False)
    assert "tRTRS" not in verdict.rules


def test_five_activations_need_a_window() -> None:
    found = family("newton")
    sent = [(100 + 7 * n, Command.ACT, 0, 4 * n % 16 + n // 4, 3, 1) for n in range(5)]
    assert "tFAW" in check_log(found, PimLog.of(np.array(sent, np.int64)), refresh=False).rules
