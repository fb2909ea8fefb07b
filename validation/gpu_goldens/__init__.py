"""The simulator gives the bits that a real GPU gave, and wrong models do not.

What a GPU gave is recorded by validation.gpu.capture and lies in validation/gpu/golden. Rows:

    right      a recorded set, every case computed again: outputs that differ
    bound      attention of a library: its largest error over the bound
    wrong      a model that is wrong in one thing: whether some case of a set finds it out
    listed     what a library computed by a plan that it does not tell, or that has no model
    left out   sets that could not be recorded, and why
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from accelsim.results.claims import Claim, Row

from ..gpu import plans, replay
from ..gpu.cases import Case
from ..gpu.golden import RECORDED, Folder, Golden
from ..gpu.replay import Compared

CLAIM = Claim(
    name="gpu-goldens",
    statement="outputs of kernels on a GPU that differ from the simulator's (rows 'right'); wrong"
    " models found out (rows 'wrong')",
    source="bits recorded on the GPUs named in the rows, validation/gpu/golden",
    tolerance=0.0,
)
COMMAND = "python -m accelsim.validation.gpu.capture --out validation/gpu/golden"


def outstanding(root: Path = replay.GOLDEN) -> str:
    """What is to be done, "" if a GPU has been recorded."""
    entries = [entry for one in replay.folders(root) for entry in one.sets.values()]
    if any(entry["status"] == RECORDED for entry in entries):
        return ""
    return f"no GPU has been recorded: run `{COMMAND}` on a CUDA machine"


def rows(root: Path = replay.GOLDEN) -> Iterator[Row]:
    """Every recorded GPU."""
    for folder in replay.folders(root):
        yield from folder_rows(folder)


def folder_rows(
    folder: Folder, cases: Sequence[Case] | None = None, most_macs: float = math.inf
) -> Iterator[Row]:
    """The rows of one GPU; cases of more than ``most_macs`` are passed over."""
    known = replay.all_cases() if cases is None else {case.name: case for case in cases}
    gpu = str(folder.manifest["device"]["name"])
    for name, goldens in replay.recorded_sets(folder):
        about = folder.sets[name]
        found_cases = [(golden, replay.case_of(golden, known)) for golden in goldens]
        pairs = [(golden, case) for golden, case in found_cases if case.macs <= most_macs]
        if not pairs:
            continue
        if pairs[0][1].kernel == "sdpa":
            yield from _bounds(gpu, pairs, str(about["capability"]))
            continue
        if pairs[0][1].kernel == "unary":
            yield from _functions(gpu, folder, pairs)
            continue
        found = [replay.compared(golden, case, about) for golden, case in pairs]
        yield from _verdicts(gpu, name, found)
        yield from _wrong(gpu, name, pairs, str(about["capability"]))
    for name, about in sorted(folder.sets.items()):
        for left in ({name: about["reason"]} if about["status"] != RECORDED else
                     about.get("dropped", {})).items():  # fmt: skip
            yield Row(f"{gpu} {left[0]}: {about['status']}: {left[1]}", 0, 0, split="left out")


def _verdicts(gpu: str, name: str, found: Sequence[Compared]) -> Iterator[Row]:
    """A row for the declared cases of a set together, one for each that differs or is listed."""
    judged = [one for one in found if one.required or one.same]
    if judged:
        outputs = sum(one.outputs for one in judged)
        differ = sum(one.stored + one.spans for one in judged)
        plan = "; ".join(dict.fromkeys(one.rule for one in judged))
        text = f"{gpu} {name}: {len(judged)} cases, {outputs:,} outputs by {plan}"
        yield Row(text, 0, differ, differ == 0, "right")
    for one in found:
        if one.required and not one.same:
            yield Row(f"{gpu} {one}", 0, one.stored + one.spans, False, "right")
        elif not one.required and not one.same:
            yield Row(f"{gpu} {one}", 0, 0, split="listed")


def _functions(gpu: str, folder: Folder, pairs: Sequence[tuple[Golden, Case]]) -> Iterator[Row]:
    """Special functions have no model of their bits: how far they are from the exact value."""
    for golden, case in pairs:
        words, found = replay.table(folder, golden, case)
        off = plans.ulps_off(case.values, words, found)
        text = f"{gpu} {case.name}: {len(found):,} of {golden.entry['count']:,} values"
        yield Row(f"{text}, at most {off:.3f} ulp off; no model of the bits", 0, 0, split="listed")


def _bounds(gpu: str, pairs: Sequence[tuple[Golden, Case]], capability: str) -> Iterator[Row]:
    for golden, case in pairs:
        ratio = plans.bound_ratio(case, capability, golden)
        text = f"{gpu} {case.name}: {len(golden.kept)} outputs, largest error over its bound"
        yield Row(f"{text} {ratio:.3g}", 0, float(ratio > 1), ratio <= 1, "bound")


def _wrong(
    gpu: str, name: str, pairs: Sequence[tuple[Golden, Case]], capability: str
) -> Iterator[Row]:
    """Each wrong model is found out by some case of a set."""
    if not plans.arithmetic_known(pairs[0][1], capability):
        return
    met: dict[str, str] = {}
    for golden, case in pairs:
        if case.values.startswith("P"):
            continue  # corners, on which few models differ
        given = None
        for what, outputs in plans.wrong(case, capability):
            if met.get(what):
                continue
            given = given or replay.given_of(golden, case)
            stored, spans = golden.differing(outputs(given))
            met[what] = f"{stored} stored outputs of {case.name} differ" if stored + spans else ""
    for what, where in met.items():
        yield Row(f"{gpu} {name}: {what}: {where or 'not found out'}", 1, float(bool(where)),
                  bool(where), "wrong")  # fmt: skip
