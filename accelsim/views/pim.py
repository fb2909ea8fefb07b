"""The text summary of an operator in memory: what ``accelsim memory FAMILY OPERATOR`` shows."""

from __future__ import annotations

from dataclasses import dataclass, fields

from accelsim.hw.pim.run import PimRun
from accelsim.quantities import HERTZ
from accelsim.results.text import (
    count_text,
    energy_text,
    percent_text,
    plural,
    scaled,
    seconds_text,
)
from accelsim.views.memory import checked
from accelsim.views.summary import energy_table


@dataclass(frozen=True, eq=False, repr=False)
class PimReport(PimRun):
    """What ``pim_run`` returns: a PimRun that prints as a summary."""

    @classmethod
    def of(cls, run: PimRun) -> PimReport:
        """The same run, able to show itself."""
        return cls(**{field.name: getattr(run, field.name) for field in fields(PimRun)})

    def __str__(self) -> str:
        return summary(self)

    def __repr__(self) -> str:
        return f"<PimReport of {self.operator} on {self.family}: {self.cycles:,} cycles>"


def summary(run: PimRun) -> str:
    """A run as plain text: how long, which commands, and where the energy went."""
    parts = (_head(run), _commands(run), _energy(run), _background(run), checked(run))
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(run: PimRun) -> str:
    simulated = ""
    if run.channels_simulated < run.channels:
        simulated = f" ({run.channels_simulated} simulated, the others do the same)"
    refresh = "" if run.refresh else "  no refresh"
    count, what = (run.elements, "elements") if run.elements else (run.macs, "macs")
    return (
        f"{run.operator}\n{run.family} on {run.device} @ {HERTZ.format(run.clock_hz)}  "
        f"{plural(run.channels, 'channel')}{simulated}{refresh}\n\n"
        f"{seconds_text(run.seconds)}   {run.cycles:,} clocks   "
        f"{count_text(count)} {what}   {count / run.cycles:,.1f} {what}/clock"
    )


def _commands(run: PimRun) -> str:
    return "Commands\n  " + "   ".join(f"{name} {count:,}" for name, count in run.commands.items())


def _energy(run: PimRun) -> str:
    total = run.energy_pj["total"]
    if not total:
        return ""
    each = f"   {total / run.macs:.3g} pJ/MAC" if run.macs else ""
    used = {name: pj for name, pj in run.energy_pj.items() if pj}
    return f"Energy\n{energy_table(used)}\n  total {energy_text(total)}{each}"


def _background(run: PimRun) -> str:
    if not run.background:
        return ""
    share = run.background_bytes_per_second / run.peak_bytes_per_second
    return (
        f"Reads\n  {run.background} under way per channel: {run.background_reads:,} ended, "
        f"{scaled(run.background_bytes_per_second, 'B/s')} ({percent_text(share)} of the peak)"
    )
