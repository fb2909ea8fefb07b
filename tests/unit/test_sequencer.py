"""Launches: operators of a core with a sequencer do not overlap, and each pays for its start."""

from __future__ import annotations

import numpy as np
import pytest

from accelsim.api import simulate, workload
from accelsim.errors import AccelsimError
from accelsim.hw.sequencer import Sequencer
from accelsim.program.opcodes import Opcode
from accelsim.results.result import Result
from accelsim.workload.graph import Graph

CHAIN = """\
operators:
  - {name: one, kind: gemm, m: 64, n: 64, k: 64}
  - {name: two, kind: gemm, m: 64, n: 64, k: 64, inputs: {a: one}}
  - {name: three, kind: gemm, m: 64, n: 64, k: 64}
"""


@pytest.fixture
def chain(tmp_path) -> Graph:
    file = tmp_path / "chain.yaml"
    file.write_text(CHAIN)
    return workload(file)


def run(chain: Graph, launch: int) -> Result:
    return simulate("tpu-v3", chain, overrides={"sequencer.launch": launch})


def test_every_operator_pays_its_launch(chain: Graph) -> None:
    assert run(chain, 1000).cycles == run(chain, 0).cycles + 3000


def test_operators_do_not_overlap(chain: Graph) -> None:
    result = run(chain, 10)
    bound, schedule = result.segments[0].bound, result.segments[0].schedule
    operator = bound.program.column("operator")
    works = bound.program.column("opcode") != Opcode.JOIN
    for earlier, later in ((0, 1), (1, 2)):
        ended = schedule.finish[works & (operator == earlier)].max()
        assert schedule.start[works & (operator == later)].min() >= ended
    launches = np.flatnonzero(bound.program.column("opcode") == Opcode.LAUNCH)
    assert len(launches) == 3


def test_without_a_sequencer_they_do(chain: Graph) -> None:
    result = simulate("quad-npu", chain)
    assert not (result.segments[0].bound.program.column("opcode") == Opcode.LAUNCH).any()


@pytest.mark.parametrize(("values", "problem"), [({"launch": -1}, "launch"), ({"count": 2}, "one")])
def test_senseless_parameters_are_refused(values: dict[str, int], problem: str) -> None:
    with pytest.raises(AccelsimError, match=problem):
        Sequencer(**values).check()
