"""Where the points of a sweep run: one small protocol, and this machine's cores behind it.

An executor maps a function over chunks and yields results as they finish. Chunks come from an
iterator that is asked only when there is room for another one, so it can size them by how long
earlier ones took.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol, TypeVar

from accelsim.errors import AccelsimError
from accelsim.mapping.registry import MAPPERS, load_builtin_mappers, load_plugin

IDLE_SECONDS = 120
"""How long workers wait for another sweep of this process before they end."""

PLUGIN_PREFIX = "accelsim_user_"
"""How ``load_plugin`` names the modules of user files."""

Chunk = TypeVar("Chunk")
Outcome = TypeVar("Outcome")


class Executor(Protocol):
    """Runs chunks somewhere. ``workers`` is how many run at a time."""

    @property
    def workers(self) -> int: ...

    def map(
        self, function: Callable[[Chunk], Outcome], chunks: Iterable[Chunk]
    ) -> Iterator[tuple[int, Outcome]]:
        """(number of the chunk, what the function returned), in the order in which they finish.

        An exception of the function is raised here. Closing the iterator stops all work.
        """


@dataclass(frozen=True)
class LocalExecutor:
    """The cores of this machine: worker processes that stay for the next sweep.

    ``jobs=1`` runs in this process. Workers are started afresh (never forked, so threads are no
    danger) without importing the user's main script, so a script needs no ``__main__`` guard.
    They compile or load all kernels before their first point, load the same plug-in files as this
    process, and know the mappers that it registered.
    """

    jobs: int

    @property
    def workers(self) -> int:
        return self.jobs

    def map(
        self, function: Callable[[Chunk], Outcome], chunks: Iterable[Chunk]
    ) -> Iterator[tuple[int, Outcome]]:
        if self.jobs == 1:
            return ((i, function(chunk)) for i, chunk in enumerate(chunks))
        return self._in_processes(function, chunks)

    def _in_processes(
        self, function: Callable[[Chunk], Outcome], chunks: Iterable[Chunk]
    ) -> Iterator[tuple[int, Outcome]]:
        from concurrent.futures import FIRST_COMPLETED, wait

        from joblib.externals.loky import get_reusable_executor

        # Workers start with ``python -m``, which would import from the current folder first.
        os.environ.setdefault("PYTHONSAFEPATH", "1")
        with _interrupts_wait():
            pool: Any = get_reusable_executor(
                self.jobs,
                timeout=IDLE_SECONDS,
                initializer=prepare_worker,
                initargs=(plugin_files(), own_mappers()),
            )
        waiting: dict[Any, int] = {}
        todo = enumerate(chunks)
        finished = False
        try:
            while True:
                # One chunk in hand per worker: none idles while its next one is made here.
                while len(waiting) < 2 * self.jobs and (item := next(todo, None)) is not None:
                    with _interrupts_wait():
                        waiting[pool.submit(function, item[1])] = item[0]
                if not waiting:
                    break
                done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    yield waiting.pop(future), future.result()
            finished = True
        finally:
            if not finished:
                _kill(pool)


def _kill(pool: Any) -> None:
    """End a pool in the middle of its work, without a word from its threads.

    loky's manager thread may look for a task that the shutdown has just dropped; it then ends with
    a KeyError, and its processes have to be ended here.
    """
    processes = list((pool._processes or {}).values())
    report = threading.excepthook

    def quiet(fault: threading.ExceptHookArgs) -> None:
        manager = fault.thread is not None and "ExecutorManager" in fault.thread.name
        if not (manager and fault.exc_type is KeyError):
            report(fault)

    threading.excepthook = quiet
    try:
        pool.shutdown(wait=True, kill_workers=True)
        for process in processes:
            if process.is_alive():
                process.kill()
    finally:
        threading.excepthook = report


@contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Hold Ctrl-C back for a moment: processes started here never see it, we see it after."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing.resource_tracker import ensure_running

    # It would be started together with the first worker and let Ctrl-C through again.
    ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def plugin_files() -> tuple[tuple[str, int], ...]:
    """The user's Python files that this process loaded, with their times of modification."""
    files = [
        str(module.__file__)
        for name, module in sys.modules.items()
        if name.startswith(PLUGIN_PREFIX) and getattr(module, "__file__", None)
    ]
    return tuple((file, os.stat(file).st_mtime_ns) for file in files if os.path.exists(file))


def own_mappers() -> bytes:
    """Mappers that the user's program registered itself, pickled with their code."""
    load_builtin_mappers()
    known = ("accelsim.", PLUGIN_PREFIX)
    mine = [m for m in MAPPERS.values() if not m.lower.__module__.startswith(known)]
    return bytes(_cloudpickle().dumps(mine)) if mine else pickle.dumps(mine)


def _cloudpickle() -> Any:
    """Comes with joblib: inside it before 1.6, beside it since."""
    try:
        return import_module("cloudpickle")
    except ImportError:
        return import_module("joblib.externals.cloudpickle")


def prepare_worker(plugins: tuple[tuple[str, int], ...], mappers: bytes) -> None:
    """Make a fresh process ready for its first point: plug-ins, kernels, no part in Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    load_builtin_mappers()
    for file, _ in plugins:
        load_plugin(file)
    MAPPERS.update((mapper.name, mapper) for mapper in pickle.loads(mappers))
    warm_up()


def warm_up() -> None:
    """Load (the first time: compile) the kernels that every simulation needs."""
    from accelsim.arch.catalog import arch
    from accelsim.simulation import simulate_graph
    from accelsim.workload import workload

    simulate_graph(workload("gemm:m=8,n=8,k=8"), arch("systolic"))


def local(jobs: int | None) -> LocalExecutor:
    """This machine, with as many jobs as asked for, or as it has cores for this process.

    Raises:
        AccelsimError: fewer than one job.
    """
    if jobs is None:
        affinity = getattr(os, "sched_getaffinity", None)
        jobs = len(affinity(0)) if affinity else os.cpu_count() or 1
    if jobs < 1:
        raise AccelsimError(f"jobs is {jobs}; accepted: 1 or more")
    return LocalExecutor(jobs)


EXECUTORS: dict[str, Callable[[int | None], Executor]] = {"local": local}
"""Executors by name: what makes one from a number of jobs."""


def executor_named(name: str | Executor, jobs: int | None = None) -> Executor:
    """The executor of this name, or the one that was given.

    Raises:
        AccelsimError: an unknown name.
    """
    if not isinstance(name, str):
        return name
    if name not in EXECUTORS:
        raise AccelsimError(f"unknown executor {name!r}; accepted: {', '.join(EXECUTORS)}")
    return EXECUTORS[name](jobs)
