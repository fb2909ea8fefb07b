"""The clock: from a timed program to the tick at which every instruction starts and finishes.

``run`` is the compiled engine; ``reference.run`` is the same rule as a SimPy model, to be read.
"""

from accelsim.engine.merge import run, warm_up
from accelsim.engine.schedule import DeadlockError, Schedule, TimedProgram

__all__ = ["DeadlockError", "Schedule", "TimedProgram", "run", "warm_up"]
