"""The clock's rule, one sentence at a time: on the compiled engine and on the SimPy reference."""

import pickle

import numpy as np
import pytest

from accelsim import engine
from accelsim.engine import DeadlockError, TimedProgram, reference
from accelsim.engine.schedule import port_service
from accelsim.errors import AccelsimError

NONE = (-1, -1, -1)


def program(rows, units=None, ports=3):
    """A program from rows of (unit, occupancy, latency, dependencies, {port: hold})."""
    full = [(*row, *((), {})[len(row) - 3 :]) for row in rows]
    dep = [(*row[3], *NONE)[:3] for row in full]
    port = [(*row[4], *NONE)[:3] for row in full]
    hold = [(*row[4].values(), 0, 0, 0)[:3] for row in full]
    n = len(rows)
    return TimedProgram(
        unit=np.array([row[0] for row in full], np.int32),
        occupancy=np.array([row[1] for row in full], np.int64),
        latency=np.array([row[2] for row in full], np.int64),
        dep=np.array(dep, np.int32).reshape(n, 3),
        port=np.array(port, np.int16).reshape(n, 3),
        hold=np.array(hold, np.int64).reshape(n, 3),
        units=1 + max((row[0] for row in full), default=0) if units is None else units,
        ports=ports,
    )


@pytest.fixture(params=[engine.run, reference.run], ids=["compiled", "reference"])
def run(request):
    return request.param


def test_occupancy_paces_the_unit_and_latency_paces_the_consumer(run):
    s = run(program([(0, 2, 10), (0, 2, 10), (1, 1, 1, [0])]))
    assert s.start.tolist() == [0, 2, 10]
    assert s.finish.tolist() == [10, 12, 11]
    assert s.ticks == 12


def test_dependency_is_met_by_the_finish_not_by_the_end_of_occupancy(run):
    assert run(program([(0, 50, 3), (1, 1, 1, [0])])).start.tolist() == [0, 3]


def test_dependency_on_the_same_unit_waits_for_the_result(run):
    assert run(program([(0, 1, 9), (0, 1, 1, [0])])).start.tolist() == [0, 9]


def test_every_dependency_counts(run):
    rows = [(u, 1, 2 + u) for u in (1, 2, 3)]
    for dep in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        assert run(program([*rows, (0, 1, 1, dep)])).start[3] == 5


def test_one_result_wakes_every_head_that_waits_for_it(run):
    rows = [(9, 7, 7), *((u, 1, 1, [0]) for u in range(9))]
    assert run(program(rows)).start.tolist() == [0] + [7] * 9


def test_unit_is_occupied_from_the_start_not_from_the_request(run):
    rows = [(0, 10, 10, [], {0: 10}), (1, 3, 3, [], {0: 3}), (1, 1, 1)]
    assert run(program(rows)).start.tolist() == [0, 10, 13]


def test_unit_retires_in_order(run):
    s = run(program([(0, 1, 100), (0, 1, 1), (1, 1, 1, [1])]))
    assert s.start.tolist() == [0, 1, 100]
    assert s.finish.tolist() == [100, 100, 101]


def test_port_is_granted_by_ready_time_not_in_program_order(run):
    """A STORE that waits for its COMPUTE must not hold up a LOAD that stands behind it."""
    rows = [(0, 30, 30), (1, 5, 5, [0], {0: 5}), (2, 7, 7, [], {0: 7})]
    s = run(program(rows))
    assert s.start.tolist() == [0, 30, 0]
    assert s.order.tolist() == [0, 2, 1]


def test_port_queue_is_first_come_first_served(run):
    rows = [(2, 0, 4), (3, 0, 6), (0, 9, 9, [1], {0: 9}), (1, 9, 9, [0], {0: 9})]
    s = run(program([*rows, (4, 20, 20, [], {0: 20})]))
    assert s.start.tolist() == [0, 0, 29, 20, 0]


def test_hold_may_be_shorter_than_the_instruction(run):
    rows = [(0, 10, 10, [], {1: 4}), (1, 10, 10, [], {1: 4}), (2, 1, 1, [], {1: 4})]
    assert run(program(rows)).start.tolist() == [0, 4, 8]


def test_hold_may_be_longer_than_the_instruction(run):
    """The unit stays busy with the port, and the tail of the pipeline comes after it."""
    s = run(program([(0, 2, 7, [], {0: 20}), (0, 1, 1)]))
    assert s.start.tolist() == [0, 20]
    assert s.finish.tolist() == [20 + 5, 25]


def test_ports_serve_independently(run):
    """A port that is free does not wait for a busy one, and what stands behind it moves up."""
    rows = [(0, 1, 1, [], {0: 5}), (1, 1, 1, [], {2: 8}), (2, 1, 1, [], {0: 1, 1: 1, 2: 1})]
    s = run(program([*rows, (3, 1, 1, [], {1: 3})]))
    assert s.start.tolist() == [0, 0, 0, 1]
    assert s.finish.tolist() == [5, 8, 9, 4]


DRAM, SPAD = 0, 1
CONVOY = (
    (0, 12, 12, [], {SPAD: 12}),  # an array streams its operands out of the scratchpad
    (1, 4, 54, [], {DRAM: 4, SPAD: 2}),  # a load: 4 ticks of DRAM, then 50 of latency
    (1, 4, 54, [], {DRAM: 4, SPAD: 2}),  # the next one on the same queue
    (2, 4, 54, [], {DRAM: 4, SPAD: 2}),  # and one on another queue
)


def test_transfer_that_waits_for_one_memory_does_not_block_the_other(run):
    """DRAM serves both queues in ticks 0 to 8; the scratchpad takes the bytes after the array."""
    s = run(program(CONVOY))
    assert s.order.tolist() == [0, 1, 3, 2]
    assert s.start.tolist() == [0, 0, 14, 4]
    assert s.finish.tolist() == [12, 14 + 50, 18 + 50, 16 + 50]


def test_queue_is_busy_until_the_slowest_port_has_passed_its_transfer(run):
    """Load 1 leaves DRAM at 4 and the scratchpad at 14: its queue takes the next one at 14."""
    assert run(program(CONVOY)).start[2] == 14


def test_port_service_says_when_each_port_served_what(run):
    timed = program(CONVOY)
    served = [port_service(timed, run(timed), p) for p in range(3)]
    assert [[c.tolist() for c in columns] for columns in served] == [
        [[1, 3, 2], [0, 4, 14], [4, 8, 18]],
        [[0, 1, 3, 2], [0, 12, 14, 16], [12, 14, 16, 18]],
        [[], [], []],
    ]


def test_start_is_the_first_service_when_all_ports_are_busy(run):
    rows = [(0, 9, 9, [], {0: 9}), (1, 6, 6, [], {1: 6}), (2, 2, 3, [], {0: 2, 1: 1})]
    s = run(program(rows))
    assert s.start[2] == 6
    assert s.finish[2] == 11 + 1  # port 0 serves it from 9 to 11, the tail is 1


def test_occupancy_and_latency_count_from_the_first_service(run):
    """Ports that are quicker than the unit do not shorten the instruction."""
    rows = [(1, 3, 3, [], {0: 3}), (2, 20, 30, [], {0: 1, 1: 1}), (2, 1, 1)]
    s = run(program(rows))
    assert s.start.tolist() == [0, 0, 20]
    assert s.finish.tolist() == [3, 30, 30]


def test_tail_is_never_negative(run):
    """A unit that is occupied for longer than its latency finishes with its port, not before."""
    assert run(program([(0, 50, 3, [], {0: 8})])).finish.tolist() == [8]


def test_no_time_on_a_busy_port_still_waits_for_its_turn(run):
    rows = [(0, 7, 7, [], {0: 7}), (1, 1, 1, [], {0: 0, 1: 2})]
    s = run(program(rows))
    assert s.start.tolist() == [0, 0]
    assert s.finish.tolist() == [7, 7]


@pytest.mark.parametrize("holds", [(9, 2, 0), (2, 9, 0), (0, 9, 2)])
def test_port_named_twice_counts_once_for_the_longer_hold(run, holds):
    timed = program([(0, 1, 1), (1, 1, 1, [], {0: 1})])
    timed.port[0], timed.hold[0] = [(0 if h else -1) for h in holds], holds
    s = run(timed)
    assert s.start.tolist() == [0, 9]
    assert s.finish.tolist() == [9, 10]
    assert port_service(timed, s, 0)[2].tolist() == [9, 10]


def test_tie_goes_to_the_lower_unit(run):
    rows = [(2, 3, 3, [], {0: 3}), (1, 3, 3, [], {0: 3}), (0, 3, 3, [], {0: 3})]
    s = run(program(rows))
    assert s.order.tolist() == [2, 1, 0]
    assert s.start.tolist() == [6, 3, 0]


def test_result_of_zero_latency_competes_in_the_same_tick(run):
    """Unit 2's join makes unit 0 ready at once, and unit 0 goes before the waiting unit 3."""
    rows = [(3, 4, 4, [], {0: 4}), (2, 0, 0), (0, 4, 4, [1], {0: 4})]
    s = run(program(rows))
    assert s.order.tolist() == [1, 2, 0]
    assert s.start.tolist() == [4, 0, 0]


def test_chain_of_joins_takes_no_time(run):
    rows = [(i % 3, 0, 0, [i - 1] if i else []) for i in range(9)]
    s = run(program(rows))
    assert s.ticks == 0
    assert s.order.tolist() == list(range(9))


def test_dependency_may_point_ahead(run):
    assert run(program([(0, 1, 1, [1]), (1, 5, 5)])).start.tolist() == [5, 0]


@pytest.mark.parametrize("units", [0, 1, 5])
def test_empty_program_takes_no_time(run, units):
    s = run(program([], units=units))
    assert s.ticks == 0
    assert len(s.order) == 0


def test_times_beyond_32_bits(run):
    assert run(program([(0, 2**40, 2**41), (0, 1, 1, [0])])).start.tolist() == [0, 2**41]


def test_deadlock_names_heads_and_what_they_wait_for(run):
    rows = [(0, 1, 1), (0, 1, 1, [0, 2]), (1, 1, 1, [3]), (2, 1, 1, [1])]
    with pytest.raises(DeadlockError) as caught:
        run(program(rows))
    assert caught.value.waiting == [(0, 1, 2), (1, 2, 3), (2, 3, 1)]
    assert str(caught.value) == (
        "deadlock after 1 of 4 instructions; waiting: unit 0 at instruction 1 for 2, "
        "unit 1 at instruction 2 for 3, unit 2 at instruction 3 for 1"
    )


def test_deadlock_message_stays_short_and_survives_a_process_pool(run):
    rows = [(u, 1, 1, [(u + 1) % 9]) for u in range(9)]
    with pytest.raises(DeadlockError, match=r"unit 3 at instruction 3 for 4 and 5 more$") as caught:
        run(program(rows))
    copy = pickle.loads(pickle.dumps(caught.value))
    assert str(copy) == str(caught.value)
    assert copy.waiting == caught.value.waiting
    assert len(copy.waiting) == 9


def change(**columns):
    timed = program([(0, 1, 1), (1, 1, 1, [0], {0: 1})])
    fields = {name: getattr(timed, name) for name in timed.__dataclass_fields__}
    return TimedProgram(**{**fields, **columns})


BAD = {
    "instruction 1: unit 2 does not exist, accepted: 0..1": {"unit": np.array([0, 2], np.int32)},
    "instruction 0: unit -1 does not exist, accepted: 0..1": {"unit": np.array([-1, 0], np.int32)},
    "instruction 0: unit 0 does not exist, accepted: nothing: there are no units": {"units": 0},
    "0 units and -1 ports, accepted: 0 or more": {"units": 0, "ports": -1},
    "instruction 1: dependency 2 does not exist, accepted: -1 (none) or 0..1": {
        "dep": np.array([[-1, -1, 0], [0, 2, -1]], np.int32)
    },
    "instruction 1: depends on itself": {"dep": np.array([NONE, (-1, 1, -1)], np.int32)},
    "instruction 1: port 0 does not exist, accepted: -1 (none) or nothing: there are no ports": {
        "ports": 0
    },
    "instruction 0: port -2 does not exist, accepted: -1 (none) or 0..2": {
        "port": np.array([(-2, -1, -1), NONE], np.int16)
    },
    "instruction 1: occupancy is -1 ticks, accepted: 0 or more": {"occupancy": np.array([3, -1])},
    "instruction 0: latency is -7 ticks, accepted: 0 or more": {"latency": np.array([-7, -1])},
    "instruction 1: hold is -2 ticks, accepted: 0 or more": {
        "hold": np.array([(0, 0, 0), (-2, 0, 0)])
    },
    "dep must be int32[2, 3], got int64[2, 3]": {"dep": np.array([NONE, NONE])},
    "latency must be int64[2], got int64[3]": {"latency": np.array([1, 1, 1])},
    "occupancy must be int64[2], got list": {"occupancy": [1, 1]},
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_refused_in_one_line(run, message):
    with pytest.raises(AccelsimError) as caught:
        run(change(**BAD[message]))
    assert str(caught.value) == message


def test_clock_that_would_overflow_is_refused():
    for ticks in (2**62, 2**63 - 1):
        for row in ((0, ticks, 1), (0, 1, ticks), (0, 1, 1, [], {0: ticks})):
            with pytest.raises(AccelsimError, match="runs past tick"):
                engine.run(program([row, row, row]))


def test_inputs_are_left_alone_and_may_be_read_only_or_strided():
    wide = np.zeros((2, 6), np.int64)
    timed = change(latency=np.array([4, 9, 5, 9])[::2], hold=wide[:, ::2])
    timed.dep.flags.writeable = False
    assert engine.run(timed).finish.tolist() == [4, 9]
    assert timed.latency.flags.writeable
    assert timed.latency.tolist() == [4, 5]


def test_same_program_gives_the_same_schedule():
    timed = program([(u % 4, 3, 3, [], {0: 3}) for u in range(40)])
    first, second = engine.run(timed), engine.run(timed)
    assert np.array_equal(first.start, second.start)
    assert np.array_equal(first.order, second.order)
