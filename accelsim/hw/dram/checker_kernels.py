"""The compiled passes of the command-log checker; they know constraints and logs, no controller.

A pass writes what it finds to ``found`` (rule, index of the earlier command or -1, index of the
later command) until that is full, and returns how many there were.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from accelsim._jit import njit

Ints = NDArray[np.int64]

ACT, PRE, RD, WR, REFAB, REFPB, PREAB, RDA, WRA = range(9)
COMMANDS = 9
BANK, BANK_GROUP, RANK, PSEUDO_CHANNEL, CHANNEL, OTHER_RANKS = range(6)

# Rules about the state of banks.
BANK_OPEN, BANK_CLOSED, WRONG_ROW, REFRESH_OPEN = range(4)


class Shape(NamedTuple):
    """Numbers of the parts of a channel; ``groups_per_refresh`` as in device.Refresh."""

    pseudo_channels: int
    ranks: int
    groups: int
    banks: int
    groups_per_refresh: int


class Rules(NamedTuple):
    """The constraint list as columns, sorted by the later command.

    ``first[c]`` is the first rule about command c; ``number`` is a rule's place in the device's
    list and ``depth`` the longest window.
    """

    first: Ints
    before: Ints
    scope: Ints
    cycles: Ints
    window: Ints
    number: Ints
    depth: int


class Columns(NamedTuple):
    """A log's columns that place a command."""

    cycle: Ints
    command: Ints
    pseudo_channel: Ints
    rank: Ints
    group: Ints
    bank: Ints
    row: Ints


@njit
def reach(command: int, group: int, bank: int, shape: Shape) -> tuple[int, int, int, int]:
    """Banks a command acts on: first bank group, step to the next, first bank, banks."""
    if command in (REFAB, PREAB):
        return 0, 1, 0, shape.banks
    if command == REFPB:
        step = shape.groups // shape.groups_per_refresh
        return group % step, step, bank, 1
    return group, shape.groups, bank, 1


@njit
def places(
    scope: int, place: tuple[int, int], span: tuple[int, int, int, int], shape: Shape, out: Ints
) -> int:
    """Write the instances of a scope that a command concerns; return how many.

    Instances are numbered: banks, then bank groups, ranks, pseudo-channels, and the channel last.
    """
    pc, rank = place
    group, step, bank, banks = span
    here = pc * shape.ranks + rank
    ranks = shape.pseudo_channels * shape.ranks
    first_group = ranks * shape.groups * shape.banks
    first_rank = first_group + ranks * shape.groups
    n = 0
    if scope == BANK:
        for g in range(group, shape.groups, step):
            for b in range(bank, bank + banks):
                out[n] = (here * shape.groups + g) * shape.banks + b
                n += 1
    elif scope == BANK_GROUP:
        for g in range(group, shape.groups, step):
            out[n] = first_group + here * shape.groups + g
            n += 1
    elif scope == OTHER_RANKS:
        for r in range(shape.ranks):
            if r != rank:
                out[n] = first_rank + pc * shape.ranks + r
                n += 1
    else:
        out[0] = first_rank + here
        if scope == PSEUDO_CHANNEL:
            out[0] = first_rank + ranks + pc
        elif scope == CHANNEL:
            out[0] = first_rank + ranks + shape.pseudo_channels
        n = 1
    return n


@njit
def check_constraints(log: Columns, rules: Rules, shape: Shape, found: Ints) -> int:
    """Every rule of the list, for every command, against the history of every instance.

    ``history[instance, command]`` is a ring of the indices of the last ``depth`` such commands,
    ``count`` how many there were. Sibling ranks are looked up where their own commands are kept.
    """
    ranks = shape.pseudo_channels * shape.ranks
    instances = ranks * (shape.groups * (shape.banks + 1) + 1) + shape.pseudo_channels + 1
    history = np.zeros((instances, COMMANDS, rules.depth), np.int64)
    count = np.zeros((instances, COMMANDS), np.int64)
    at = np.zeros(shape.groups * shape.banks + shape.ranks, np.int64)
    own = np.zeros(OTHER_RANKS, np.int64)  # of a command on one bank: its instance, by scope
    total = 0
    for i in range(log.cycle.shape[0]):
        command = log.command[i]
        place = (log.pseudo_channel[i], log.rank[i])
        span = reach(command, log.group[i], log.bank[i], shape)
        wide = command in (REFAB, REFPB, PREAB)
        if not wide:
            for scope in range(OTHER_RANKS):
                places(scope, place, span, shape, own[scope:])
        for rule in range(rules.first[command], rules.first[command + 1]):
            before, window, scope = rules.before[rule], rules.window[rule], rules.scope[rule]
            n = 1
            if wide or scope == OTHER_RANKS:
                n = places(scope, place, span, shape, at)
            else:
                at[0] = own[scope]
            for k in range(n):
                seen = count[at[k], before]
                if seen < window:
                    continue
                earlier = history[at[k], before, (seen - window) % rules.depth]
                if log.cycle[i] - log.cycle[earlier] < rules.cycles[rule]:
                    if total < found.shape[0]:
                        found[total, 0] = rules.number[rule]
                        found[total, 1] = earlier
                        found[total, 2] = i
                    total += 1
                    break
        for scope in range(OTHER_RANKS):
            for k in range(places(scope, place, span, shape, at)):
                _remember(history, count, at[k], command, i)
    return total


@njit
def _remember(history: Ints, count: Ints, instance: int, command: int, index: int) -> None:
    history[instance, command, count[instance, command] % history.shape[2]] = index
    count[instance, command] += 1


@njit
def check_states(log: Columns, shape: Shape, found: Ints) -> int:
    """Activations on closed banks, columns on the open row, refreshes on precharged banks.

    ``opened`` holds, per bank, the index of the activation that opened it, -1 while it is closed.
    """
    banks_of_rank = shape.groups * shape.banks
    opened = np.full(shape.pseudo_channels * shape.ranks * banks_of_rank, -1, np.int64)
    total = 0
    for i in range(log.cycle.shape[0]):
        command = log.command[i]
        here = (log.pseudo_channel[i] * shape.ranks + log.rank[i]) * banks_of_rank
        group, step, bank, banks = reach(command, log.group[i], log.bank[i], shape)
        rule, earlier = -1, -1
        for g in range(group, shape.groups, step):
            for b in range(bank, bank + banks):
                at = here + g * shape.banks + b
                by = opened[at]
                if command == ACT:
                    if by >= 0:
                        rule, earlier = BANK_OPEN, by
                    opened[at] = i
                elif command in (RD, WR, RDA, WRA):
                    if by < 0:
                        rule = BANK_CLOSED
                    elif log.row[by] != log.row[i]:
                        rule, earlier = WRONG_ROW, by
                    if command in (RDA, WRA):
                        opened[at] = -1
                elif command in (REFAB, REFPB):
                    if by >= 0:
                        rule, earlier = REFRESH_OPEN, by
                else:
                    opened[at] = -1
        if rule >= 0:
            if total < found.shape[0]:
                found[total, 0] = rule
                found[total, 1] = earlier
                found[total, 2] = i
            total += 1
    return total
