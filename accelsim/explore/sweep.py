"""Sweeps: every point of a design space simulated, stored as it finishes, compared at the end."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.engine.bind import FIDELITIES
from accelsim.errors import AccelsimError
from accelsim.explore.chunks import Chunks
from accelsim.explore.evaluate import (
    OK,
    SKIPPED,
    Evaluated,
    Record,
    Task,
    evaluate,
    metric_columns,
    objective_names,
    one_line,
)
from accelsim.explore.executors import (
    Executor,
    LocalExecutor,
    executor_named,
    plugin_files,
    warm_up,
)
from accelsim.explore.outcome import Sweep
from accelsim.explore.pareto import check_objective
from accelsim.explore.progress import progress_bar
from accelsim.explore.space import DesignPoint
from accelsim.explore.store import KEY, Store

if TYPE_CHECKING:
    from accelsim.workload.graph import Graph

PROBE_SECONDS = 1.0
"""How long a sweep that was given no number of jobs runs in this process before it decides."""

WORTH_WORKERS_SECONDS = 6.0
"""Work left from which on starting worker processes (2-3 s each) pays off."""


class SweepInterrupted(KeyboardInterrupt):
    """Ctrl-C during a sweep; ``sweep`` holds what was finished."""

    def __init__(self, message: str, sweep: Sweep) -> None:
        super().__init__(message)
        self.sweep = sweep


def sweep(
    points: Sequence[DesignPoint],
    workload: str | Graph = "",
    *,
    out: str | Path | None = None,
    resume: bool = False,
    executor: str | Executor = "local",
    jobs: int | None = None,
    memory: str = "bandwidth",
    mapper: str | Sequence[str] = (),
    objectives: Sequence[str] = ("seconds", "energy_pj"),
) -> Sweep:
    """Simulate a workload on every point of a grid.

    ``out`` is a CSV (or the folder for one) that results are appended to as they arrive; with
    ``resume`` the points it already holds are not simulated again. ``jobs`` is the number of
    processes: 1 stays in this one, None uses all cores once the work is worth their start-up.
    Points that contradict themselves, or whose workload does not fit, are rows with a reason
    instead of numbers. Ctrl-C raises SweepInterrupted, which holds what was finished.

    Raises:
        AccelsimError: nothing could ever run (unknown workload, fidelity or executor), ``out``
            holds other results, or it cannot be written.
    """
    wanted = (mapper,) if isinstance(mapper, str) and mapper else tuple(mapper)
    study = _Study(points, workload, memory, wanted, tuple(objectives))
    study.check()
    if out is not None:
        study.open(out, resume)
    began = time.perf_counter()
    try:
        study.run(executor, jobs)
    except KeyboardInterrupt:
        done = study.outcome(time.perf_counter() - began)
        where = f"; {study.store.path} holds them, resume continues" if study.store else ""
        message = f"interrupted after {len(done.rows)} of {len(points)} points{where}"
        raise SweepInterrupted(message, done) from None
    return study.outcome(time.perf_counter() - began)


@dataclass
class _Study:
    """A sweep while it runs: tasks to do, and records by the index of their point."""

    points: Sequence[DesignPoint]
    workload: str | Graph
    memory: str
    mapper: tuple[str, ...]
    objectives: tuple[str, ...]
    store: Store | None = None
    records: dict[int, Record] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)
    resumed: int = 0
    busy_seconds: float = 0.0
    workers: int = 1

    def __post_init__(self) -> None:
        if not len(self.points):
            raise AccelsimError("a sweep needs points; accepted: grid(arch, {PATH: [values]})")
        self.started = time.time_ns()
        self.axes = tuple(axis for axis, _ in self.points[0].values)
        self.metrics = metric_columns(self.points)
        self.tasks = [self._task(i, point) for i, point in enumerate(self.points)]

    def _task(self, index: int, point: DesignPoint) -> Task:
        values = point.parameters
        if tuple(values) != self.axes:
            raise AccelsimError(
                f"point {index} has the axes {', '.join(values) or 'none'}; accepted: those of "
                f"the first point, {', '.join(self.axes) or 'none'}"
            )
        mapper = values.get("mapper")
        return Task(
            index,
            point,
            str(values["workload"]) if "workload" in values else self.workload,
            str(values.get("memory", self.memory)),
            (str(mapper),) if mapper else self.mapper,
            self.started,
        )

    def check(self) -> None:
        """Refuse what no point could run: better now than as a table of skipped rows."""
        accepted = objective_names(self.points)
        for objective in self.objectives:
            check_objective(objective, accepted)
        for task in self.tasks:
            if task.memory not in FIDELITIES:
                raise AccelsimError(
                    f"memory fidelity {task.memory!r} is not available; "
                    f"accepted: {', '.join(FIDELITIES)}"
                )
            if not task.workload:
                raise AccelsimError("no workload; accepted: a name, a graph or an axis 'workload'")
        # The same fault at both ends of the space does not depend on where one is in it.
        first, last = (_workload_fault(self.tasks[i]) for i in (0, -1))
        if first and first == last:
            raise AccelsimError(first)

    # -- what is stored --------------------------------------------------------------------------

    def open(self, out: str | Path, resume: bool) -> None:
        """Open the store and take over the points that it holds already."""
        self.store = Store.open(out, self._columns(), resume=resume)
        self.keys = list(self._keys())
        stored = self.store.read() if resume else {}
        for task, key in zip(self.tasks, self.keys, strict=True):
            line = stored.get(key)
            if line and line["status"] in (OK, SKIPPED):
                self.records[task.index] = self._parsed(task.index, line)
        self.resumed = len(self.records)

    def _columns(self) -> tuple[str, ...]:
        context = dict.fromkeys(("arch", "workload", "memory", *self.axes))
        return (*context, "status", "error", *self.metrics)

    def _keys(self) -> Iterator[str]:
        from accelsim._version import __version__

        digests: dict[Any, str] = {}
        plugins = _plugin_digest()
        for task in self.tasks:
            what = (id(task.workload), str(task.workload), tuple(task.point.settings.items()))
            if what not in digests:
                digests[what] = _workload_digest(task)
            yield task.point.key(digests[what], task.memory, *task.mapper, __version__, plugins)

    def _parsed(self, index: int, line: Mapping[str, str]) -> Record:
        numbers: Record = {
            name: kind(line[name]) for name, kind in self.metrics.items() if line[name] != ""
        }
        told = {"status": line["status"], "error": line["error"]}
        return {"index": index, **told, **numbers}

    # -- running ---------------------------------------------------------------------------------

    def run(self, executor: str | Executor, jobs: int | None) -> None:
        """Simulate what is not done yet."""
        todo = [task for task in self.tasks if task.index not in self.records]
        chosen = executor_named(executor, jobs)
        chunks = Chunks(todo, chosen.workers)
        outcomes = self._evaluated(chunks, chosen, undecided=jobs is None)
        bar = progress_bar("sweep", len(self.tasks), self.resumed)
        # Closing the outcomes stops the workers, whatever happens here.
        with bar as advance, closing(outcomes):
            for evaluated in outcomes:
                self._keep(evaluated)
                chunks.took(len(evaluated.records), evaluated.seconds)
                advance(len(evaluated.records))

    def _evaluated(
        self, chunks: Chunks[Task], executor: Executor, *, undecided: bool
    ) -> Generator[Evaluated, None, None]:
        """Outcomes of chunks as they finish: here at first, where that may be all there is."""
        if undecided and isinstance(executor, LocalExecutor):
            yield from self._probe(chunks, executor.workers)
        if chunks.left:
            self.workers = executor.workers
            for _, evaluated in executor.map(evaluate, chunks):
                yield evaluated

    def _probe(self, chunks: Chunks[Task], workers: int) -> Iterator[Evaluated]:
        """Chunks in this process, until the work left is worth the start of ``workers``."""
        if chunks.left:
            warm_up()
        began = time.perf_counter()
        for chunk in chunks:
            yield evaluate(chunk)
            left = chunks.seconds_left() or 0.0
            waited = time.perf_counter() - began > PROBE_SECONDS
            if workers > 1 and waited and left > WORTH_WORKERS_SECONDS:
                return

    def _keep(self, evaluated: Evaluated) -> None:
        self.busy_seconds += evaluated.seconds
        for record in evaluated.records:
            self.records[record["index"]] = record
        if self.store:
            indices = [record["index"] for record in evaluated.records]
            self.store.append({KEY: self.keys[i], **self._row(self.tasks[i])} for i in indices)

    # -- the outcome -----------------------------------------------------------------------------

    def _row(self, task: Task) -> dict[str, Any]:
        from accelsim.simulation import describe

        record = self.records[task.index]
        named = task.workload if isinstance(task.workload, str) else describe(task.workload)
        context = {"arch": task.point.arch.name, "workload": named, "memory": task.memory}
        told = {"status": record["status"], "error": record["error"]}
        numbers = {name: record.get(name) for name in self.metrics}
        return {**context, **task.point.parameters, **told, **numbers}

    def outcome(self, wall_seconds: float) -> Sweep:
        """What is finished, in the order of the points."""
        rows = [self._row(task) for task in self.tasks if task.index in self.records]
        return Sweep(
            rows=rows,
            axes=self.axes,
            metrics=tuple(self.metrics),
            objectives=self.objectives,
            wall_seconds=wall_seconds,
            busy_seconds=self.busy_seconds,
            workers=self.workers,
            resumed=self.resumed,
        )


def _workload_fault(task: Task) -> str:
    try:
        task.graph()
    except AccelsimError as fault:
        return one_line(fault)
    return ""


def _plugin_digest() -> str:
    """Digest of the user's code that results may depend on; empty if there is none."""
    code = hashlib.sha256()
    files = [Path(file) for file, _ in plugin_files()]
    for file in sorted(files, key=lambda one: one.name):
        code.update(file.read_bytes())
    return code.hexdigest() if files else ""


def _workload_digest(task: Task) -> str:
    """Digest of the workload's content; of its name and settings where it cannot be built."""
    try:
        return task.graph().digest()
    except AccelsimError:
        return f"{task.workload}:{sorted(task.point.settings.items())}"
