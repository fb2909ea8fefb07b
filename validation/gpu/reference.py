"""A program beside a GPU: executed on the operands that a GPU was given, compared bit for bit.

    golden   the operands of recorded cases of the same product, format, unit and order
    gpu      fresh operands, run now by our reference kernel in the program's own order

Products of whole matrices are compared: the kernels of which the order is declared. Where a program
stores narrower results than the fp32 sums that were recorded, these are rounded once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from accelsim.engine.bind import bind
from accelsim.engine.merge import run as run_engine
from accelsim.errors import AccelsimError
from accelsim.functional.check import load_image
from accelsim.functional.execute import execute
from accelsim.functional.lowering import lowerings
from accelsim.functional.memory import Memory
from accelsim.numerics.formats import number_format
from accelsim.numerics.orders import order_of
from accelsim.simulation import compile_program, plan_memory
from accelsim.workload.operators import Gemm

from . import replay
from .cases import INTEGER_CLASSES, Case, arithmetic_of
from .golden import Golden, positions
from .inputs import Codes, Values
from .operands import Operands, operands
from .recording import Device, InexactError, checked

Array = npt.NDArray[Any]

LIVE_CLASSES: tuple[Values, ...] = ("narrow", "wide", "cancellation", "positive")
TILE, PROMOTED = 64, 128
"""Our product kernel's tiles and steps of k, and the length of its promotion."""
COMMAND = "python -m accelsim.validation.gpu.capture --out validation/gpu/golden"


@dataclass(frozen=True)
class Referred:
    """One operator on one set of operands: how many outputs were compared and differ.

    An operator that nothing recorded matches has compared none.
    """

    operator: str
    reference: str
    compared: int
    differing: int
    arithmetic: str
    order: str
    first: str = ""

    @property
    def ok(self) -> bool:
        """Whether all bits that were compared are the same."""
        return self.differing == 0


@dataclass(frozen=True)
class Compiled:
    """One product's program on an architecture, ready to be executed on operands."""

    operator: Gemm
    formats: tuple[str, str, str]
    unit: str
    order: str
    execute: Callable[[Operands], Array]

    def __str__(self) -> str:
        o, (a, b, out) = self.operator, self.formats
        return f"{o.name} ({o.m} x {o.n} x {o.k}, {a} x {b} -> {out}, {self.unit}, {self.order})"

    def case(self, values: str) -> Case:
        """The reference kernel's case of the same product in the same order."""
        o, (a, b, _) = self.operator, self.formats
        return Case(
            name=f"live-{a}-{o.m}x{o.n}x{o.k}-{self.order}-{values}", kernel="gemm", a=a, b=b,
            out="int32" if a == "int8" else "fp32", m=o.m, n=o.n, k=o.k, values=values,
            order=self.order,
        )  # fmt: skip


def compiled(arch: Any, graph: Any, mappers: Sequence[str], fidelity: Any, order: str) -> Iterator[
    Compiled
]:  # fmt: skip
    """The products of a workload, each compiled by itself."""
    plan = plan_memory(graph, arch, fidelity)
    for operator in graph.operators:
        if not _is_plain(operator):
            continue
        program = compile_program(graph, (operator,), arch, plan, fidelity, tuple(mappers))
        schedule = None if order == "program" else run_engine(bind(program, arch, fidelity).timed)
        blocks = [arch.units[slot.unit] for slot in program.units]
        facts = lowerings(program, blocks)[0]
        names = (*operator.inputs, operator.output)
        a, b, out = (graph.tensors[name].dtype for name in names)

        def run(
            given: Operands, operator: Gemm = operator, program: Any = program,
            blocks: Any = blocks, schedule: Any = schedule,
        ) -> Array:  # fmt: skip
            memory = Memory(program)
            load_image(program, memory, _values(graph, operator, given))
            found = execute(program, blocks, memory, schedule)
            return np.asarray(found.tensors[operator.name, operator.output])

        yield Compiled(operator, (a, b, out), facts.arithmetic.split(" (")[0],
                       _tag(facts.order), run)  # fmt: skip


def _is_plain(operator: Any) -> bool:
    """A product of two matrices, nothing added."""
    return (
        isinstance(operator, Gemm)
        and operator.batch == operator.groups == 1
        and len(operator.inputs) == 2
    )


def _tag(order: str) -> str:
    """What a program declares, without what goes without saying for its unit."""
    return str(replace(order_of(order.split("|")[0]), adders=""))


def _values(graph: Any, operator: Gemm, given: Operands) -> dict[str, Array]:
    """Stored elements of a and b from the bit patterns of a[m, k] and b[n, k]."""
    b = given["b"] if operator.transpose_b else np.ascontiguousarray(given["b"].T)
    pairs = zip(operator.inputs, (given["a"], b), strict=True)
    return {
        name: number_format(graph.tensors[name].dtype).stored(codes.view(_plain(codes)))
        for name, codes in pairs
    }


def _plain(codes: Codes) -> str:
    """Bit patterns of integers are those of two's complement."""
    return f"<u{codes.dtype.itemsize}"


def _stored(fmt: str, recorded: Codes, out: str) -> Codes:
    """Recorded outputs as a program would store them: rounded once if its format is narrower."""
    if fmt == out:
        return recorded.view(_plain(recorded))
    held = number_format(out)
    with np.errstate(all="ignore"):
        return np.asarray(held.codes(held.encode(replay.values(fmt, recorded))))


def _differing(one: Compiled, got: Array, at: Any, recorded: Codes, case: Case) -> tuple[int, str]:
    """How many of some outputs differ, and the first of them."""
    out = number_format(one.formats[2])
    mine = np.asarray(out.codes(got)).reshape(-1)[at]
    theirs = _stored(case.out, recorded, one.formats[2])
    nan = [_is_nan(out.name, bits) for bits in (mine, theirs)]
    wrong = (mine != theirs) & ~(nan[0] & nan[1])
    if not wrong.any():
        return 0, ""
    where = int(np.flatnonzero(wrong)[0])
    digits = 2 * mine.dtype.itemsize
    text = f"{case.name} at {int(at[where])}: simulated 0x{int(mine[where]):0{digits}X}"
    return int(wrong.sum()), f"{text}, GPU 0x{int(theirs[where]):0{digits}X}, order {one.order}"


def _is_nan(fmt: str, bits: Codes) -> Array:
    held = number_format(fmt)
    if held.is_integer:
        return np.zeros(bits.shape, dtype=bool)
    return np.isnan(np.asarray(held.decode(held.stored(bits))).astype(np.float64))


# --- recorded


def against_goldens(products: Sequence[Compiled], root: Path = replay.GOLDEN) -> list[Referred]:
    """Every product beside the recorded cases that match it; AccelsimError if none does."""
    folders = replay.folders(root)
    if not folders:
        raise AccelsimError(f"no GPU has been recorded: run `{COMMAND}` on a CUDA machine")
    known, found, matched = replay.all_cases(), [], set()
    for folder in folders:
        gpu = str(folder.manifest["device"]["name"])
        capability = str(folder.manifest["device"]["capability"])
        for _, goldens in replay.recorded_sets(folder):
            for golden in goldens:
                case = replay.case_of(golden, known)
                for one in products:
                    if matches(one, case, capability):
                        matched.add(one.operator.name)
                        found.append(_beside(one, golden, case, gpu))
    left = [one for one in products if one.operator.name not in matched]
    if not found:
        _none_matches(left[0], known)
    found += [
        Referred(one.operator.name, "no golden matches", 0, 0, one.unit, one.order) for one in left
    ]
    return found


def matches(one: Compiled, case: Case, capability: str) -> bool:
    """Whether a case is a product of the same shape, formats, unit and order."""
    o = one.operator
    return (
        case.kernel == "gemm"
        and (case.m, case.n, case.k) == (o.m, o.n, o.k)
        and (case.a, case.b) == one.formats[:2]
        and arithmetic_of(capability, case) == one.unit
        and (case.out == "int32" or order_of(case.order) == order_of(one.order))
    )


def _none_matches(one: Compiled, known: dict[str, Case]) -> None:
    shapes = sorted({(c.m, c.n, c.k) for c in known.values() if c.kernel == "gemm"})
    text = ", ".join(f"{m} x {n} x {k}" for m, n, k in shapes)
    raise AccelsimError(f"no golden matches {one}; shapes that are recorded: {text}")


def _beside(one: Compiled, golden: Golden, case: Case, gpu: str) -> Referred:
    got = one.execute(replay.given_of(golden, case))
    at = positions(case.name, case.count)
    differing, first = _differing(one, got, at, golden.kept, case)
    return Referred(one.operator.name, f"{gpu}: {case.name}", len(at), differing, one.unit,
                    one.order, first)  # fmt: skip


# --- live


def against_gpu(products: Sequence[Compiled], device: Device) -> list[Referred]:
    """Every product beside the reference kernel on this machine's GPU, in the program's order."""
    found = []
    for one in products:
        _suits(one, device)
        classes = INTEGER_CLASSES if one.formats[0] == "int8" else LIVE_CLASSES
        try:
            checked([one.case(classes[0])], device)
        except InexactError as fault:
            raise AccelsimError(f"the reference kernel is wrong on this GPU: {fault}") from fault
        for values in classes:
            case = one.case(values)
            given = operands(case)
            output, _ = device.run(case, given, 0)
            at = np.arange(case.count)
            got = one.execute(given)
            differing, first = _differing(one, got, at, output.reshape(-1), case)
            found.append(Referred(one.operator.name, f"this GPU: {values}", case.count, differing,
                                  one.unit, one.order, first))  # fmt: skip
    return found


def _suits(one: Compiled, device: Device) -> None:
    """AccelsimError for a product that the reference kernel does not compute."""
    case = one.case("narrow")
    step = PROMOTED if case.order.startswith("promote") else TILE
    unit = arithmetic_of(device.capability, case)
    if case.m % TILE or case.n % TILE or any(len(some) % step for some in case.cuts):
        raise AccelsimError(
            f"{one}: the reference kernel takes m and n in multiples of {TILE} and slices of k in"
            f" multiples of {step}"
        )
    if not case.order.startswith(("chain", "split", f"promote:{PROMOTED}")) or (
        "serial" in case.order
    ):
        raise AccelsimError(
            f"{one}: the reference kernel sums by chain, split:...:forward and promote:{PROMOTED}"
        )
    if unit != one.unit:
        raise AccelsimError(f"{one}: this GPU computes as {unit or 'no unit modelled here'}")


# --- the command


def check(
    arch: Any, graph: Any, reference: str, mappers: Sequence[str], fidelity: Any, order: str
) -> list[Referred]:
    """What ``accelsim check --reference golden|gpu`` compares."""
    device: Device | None = None
    if reference == "gpu":
        from .devices.cuda import CudaDevice

        device = CudaDevice(Path())  # which builds nothing: the reference kernel is Triton's
    products = list(compiled(arch, graph, mappers, fidelity, order))
    if not products:
        raise AccelsimError(
            f"{graph.name} has no plain product of two matrices, which alone is compared with a GPU"
        )
    return against_goldens(products) if device is None else against_gpu(products, device)
