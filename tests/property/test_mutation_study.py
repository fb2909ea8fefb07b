"""Mutants of mapped programs: none that matters goes unnoticed, and every detector is needed."""

from dataclasses import replace
from random import Random

import numpy as np
import pytest
from accelsim.validation.mutations import detectors
from accelsim.validation.mutations.detectors import DETECTORS, study, table
from accelsim.validation.mutations.harmless import Original
from accelsim.validation.mutations.hazards import races
from accelsim.validation.mutations.programs import Case, cases

from accelsim.functional.check import check
from accelsim.program.opcodes import Function
from accelsim.program.table import COLUMN
from accelsim.program.verify import violations

SMALL_PROGRAM = 100  # instructions


@pytest.fixture(scope="module")
def mapped() -> list[Case]:
    return list(cases())


@pytest.fixture(scope="module")
def few(mapped: list[Case]) -> list[Case]:
    return [case for case in mapped if len(case.program) < SMALL_PROGRAM]


def test_every_harmful_mutant_is_noticed(mapped) -> None:
    shares = study(mapped, Random(11), per_class=4)
    text = table(shares)
    assert not any(share.missed for share in shares.values()), text
    for name, share in shares.items():
        assert share.harmful > share.mutants / 4, text
        if name not in ("address shifted", "tile skipped"):
            assert share.of("verifier") == 1, text
    for kind, name, least in (
        ("dependency dropped", "clock order", 0.3),
        ("buffer overlapped", "clock order", 0.2),
        ("storage shrunk", "numbers", 0.5),
        ("address shifted", "verifier", 0.6),
        ("address shifted", "numbers", 0.9),
        ("tile skipped", "verifier", 0.4),
        ("tile skipped", "clock order", 0.9),
        ("tile skipped", "numbers", 0.9),
    ):
        assert shares[kind].of(name) > least, text


def test_each_detector_is_needed(few, monkeypatch) -> None:
    whole = study(few, Random(5), 3)
    monkeypatch.setattr(detectors, "violations", lambda program, limit: [])
    blind = study(few, Random(5), 3)
    for kind, share in whole.items():
        assert blind[kind].caught["verifier"] == 0
        for name in ("clock order", "numbers"):
            assert blind[kind].caught[name] == share.caught[name]
    assert blind["dependency dropped"].missed
    assert blind["dependency dropped"].caught["clock order"] > 0
    assert blind["tile skipped"].missed == whole["tile skipped"].missed == []
    monkeypatch.undo()
    alone = study(few, Random(5), 3, {"verifier": DETECTORS["verifier"]})
    assert alone["tile skipped"].missed
    assert alone["dependency dropped"].missed == []


def test_the_verifier_wants_exactly_the_waits_that_a_race_needs(few) -> None:
    for case in few:
        assert races(case.program) == []
        for i, c in np.argwhere(case.program.deps >= 0).tolist():
            rows = case.program.instructions.copy()
            rows[i, COLUMN["dep0"] + c] = -1
            mutant = replace(case.program, instructions=rows)
            assert bool(violations(mutant)) == bool(races(mutant)), (case.name, i, c)


@pytest.mark.parametrize(
    ("start", "function", "scale"),
    [("attention", Function.SUB, 16.0), ("llama", Function.ADD_IMM, 1 / 64)],
    ids=["maximum not subtracted", "epsilon not added"],
)
def test_some_mistakes_show_only_on_large_or_small_values(mapped, start, function, scale) -> None:
    case = next(case for case in mapped if case.name.startswith(start))
    functions = case.program.column("function")
    rows = case.program.instructions.copy()
    rows[functions == function] = _nothing(rows[functions == function])
    mutant = replace(case.program, instructions=rows)
    assert not violations(mutant)
    assert check(case.arch, case.graph, case.program, scale=scale).ok
    assert check(case.arch, case.graph, mutant).ok
    assert not check(case.arch, case.graph, mutant, scale=scale).ok
    assert Original(case).equals(mutant) == ""


def _nothing(rows: np.ndarray) -> np.ndarray:
    """The rows as joins, with the same waits."""
    rows = rows.copy()
    for column in ("opcode", "function", "flags", "m", "n", "k"):
        rows[:, COLUMN[column]] = 0
    rows[:, COLUMN["dst"] :] = -1
    return rows
