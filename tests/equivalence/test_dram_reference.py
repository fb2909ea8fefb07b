"""The compiled channel is the specification in plain Python: every command and every time.

Banks, rows and columns are few and queues small, so that conflicts, full queues, merging,
forwarding, drains and refreshes in the middle of requests are the rule.
"""

import pytest
from dram_streams import compiled, controllers, devices, runs, singles
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accelsim.hw.dram import reference
from accelsim.hw.dram.catalog import device
from accelsim.hw.dram.commands import Command
from accelsim.hw.dram.controller import Controller
from accelsim.hw.dram.reference import Request

MANY = settings(  # the first example compiles
    deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=250
)


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
