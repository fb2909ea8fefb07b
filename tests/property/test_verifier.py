"""The verifier says exactly what a byte-by-byte oracle says, on correct and on mutated programs."""

from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import study, table
from program_factory import MAKERS, random_program
from program_oracle import judge

from accelsim.program.mutate import MUTATIONS, mutate
from accelsim.program.opcodes import ISSUED
from accelsim.program.table import COLUMN
from accelsim.program.verify import violations
from accelsim.program.verify.extents import Extents
from accelsim.program.verify.hazards import _scan
from accelsim.program.verify.structure import judge as judge_operands

SEEDS = st.integers(0, 2**32 - 1)
PLAIN = settings(deadline=None, derandomize=True, database=None)


@pytest.mark.parametrize("maker", MAKERS)
def test_correct_programs_pass(maker) -> None:
    for seed in range(40):
        program = maker(Random(seed))
        assert [str(v) for v in violations(program)] == []
        assert judge(program).legal


@settings(PLAIN, max_examples=1500)
@given(SEEDS, st.sampled_from(sorted(MUTATIONS)))
def test_the_verifier_agrees_with_the_oracle(seed: int, kind: str) -> None:
    rng = Random(seed)
    mutant, _, what = mutate(random_program(rng), rng, kind)
    truth = judge(mutant)
    found = [str(v) for v in violations(mutant)]
    assert bool(found) != truth.legal, (what, found, truth.faults)


@settings(PLAIN, max_examples=600)
@given(SEEDS, st.sampled_from(MAKERS), st.sampled_from([1, 3, 30]))
def test_waits_that_are_cut_short(seed: int, maker, count: int) -> None:
    """Waits for results become waits for the issue: enough for an overwrite, not for a read."""
    rng = Random(seed)
    program = maker(rng)
    rows = program.instructions.copy()
    waits = np.argwhere(program.deps >= 0).tolist()
    for i, c in rng.sample(waits, min(count, len(waits))):
        rows[i, COLUMN["flags"]] |= ISSUED[c]
    mutant = replace(program, instructions=rows)
    truth = judge(mutant)
    found = [str(v) for v in violations(mutant)]
    assert bool(found) != truth.legal, (found, truth.faults)


@settings(PLAIN, max_examples=400)
@given(SEEDS)
def test_several_mistakes_at_once_do_not_hide_each_other(seed: int) -> None:
    rng = Random(seed)
    mutant = random_program(rng)
    for _ in range(rng.choice((2, 3))):
        mutant, _, _ = mutate(mutant, rng, rng.choice(("dependency dropped", "address shifted")))
    assert bool(violations(mutant)) != judge(mutant).legal


@settings(PLAIN, max_examples=400)
@given(SEEDS)
def test_what_the_quick_pass_accepts_the_exact_pass_accepts(seed: int) -> None:
    rng = Random(seed)
    program, _, _ = mutate(random_program(rng), rng, "dependency dropped")
    extents = Extents.of(program)
    verdicts = judge_operands(program, extents)
    units = len(program.units)
    cells = extents.cells(program, verdicts)
    quick = _scan(program, cells, units, extents.segments, extents.n_segments, 1)
    exact = extents.cells(program, verdicts, exact=True)
    found = _scan(program, exact, units, np.zeros_like(extents.segments), 0, 1)
    assert len(quick) or not len(found)
    if not extents.n_segments:
        assert quick.tolist() == found.tolist()


def test_the_share_of_mistakes_that_the_verifier_catches() -> None:
    programs = [maker(Random(seed)) for seed in range(4) for maker in MAKERS]
    shares = study(programs, Random(7), per_class=6)
    text = table(shares)
    for name, share in shares.items():
        assert share.missed == share.false_alarms == 0, text
        assert share.caught > 0, text
        if name not in ("address shifted", "tile skipped", "order swapped"):
            assert share.legal == 0, text
    assert shares["address shifted"].share > 0.7, text
    assert shares["tile skipped"].share > 0.5, text


@pytest.mark.parametrize(
    "kind", ["bounds", "coverage", "unwritten", "read-after-write", "write-after-read"]
)
def test_the_study_notices_a_verifier_without_one_kind_of_check(kind: str) -> None:
    programs = [maker(Random(seed)) for seed in range(3) for maker in MAKERS]
    shares = study(programs, Random(7), 6, lambda p: [v for v in violations(p) if v.kind != kind])
    assert sum(share.missed for share in shares.values()) > 0, table(shares)


def _cell_bytes(grids, cuts, group: int) -> dict[int, set[int]]:
    pitch, first, height, width, cut = grids[group].tolist()
    rows, columns = cuts[cut : cut + height + 1], cuts[cut + height + 1 : cut + height + width + 2]
    cells = {}
    for r in range(height):
        for c in range(width):
            lines = range(rows[r], rows[r + 1])
            inside = range(columns[c], columns[c + 1])
            cells[first + r * width + c] = {int(y * pitch + x) for y in lines for x in inside}
    return cells


WINDOWS = st.lists(
    st.tuples(
        st.integers(0, 1),  # group
        st.integers(0, 60),  # offset
        st.integers(1, 6),  # rows
        st.integers(1, 20),  # row bytes
        st.sampled_from((0, 1, 5, 8, 16, 17, 32)),  # stride
    ),
    min_size=1,
    max_size=8,
)


@settings(PLAIN, max_examples=200)
@given(WINDOWS)
def test_cells_are_the_bytes_of_the_windows(windows: list[tuple[int, ...]]) -> None:
    from accelsim.program.verify.cell_kernels import build_cells

    first, rectangles, grids, cuts, count = build_cells(np.array(windows, dtype=np.int64), 2)
    seen: dict[int, set[int]] = {}
    for group in (0, 1):
        cells = _cell_bytes(grids, cuts, group) if grids[group, 2] else {}
        seen |= cells
        assert sum(map(len, cells.values())) == len(set().union(*cells.values(), set()))
    assert sorted(seen) == list(range(count))
    for w, (_, offset, rows, row_bytes, stride) in enumerate(windows):
        covered = set()
        for cell, lines, width, step in rectangles[first[w] : first[w + 1]].tolist():
            for line in range(lines):
                for c in range(width):
                    covered |= seen[cell + line * step + c]
        wanted = {offset + r * stride + b for r in range(rows) for b in range(row_bytes)}
        assert covered == wanted
