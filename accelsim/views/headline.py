"""The answer in one line: how long, how fast, what limits it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from accelsim.quantities import HERTZ
from accelsim.results.text import energy_text, percent_text, scaled, seconds_text

if TYPE_CHECKING:
    from accelsim.results.result import Result

SATURATED = 0.6
"""A resource used at this share of its peak or more is said to limit the run."""

_NAMED = ("batch", "tokens", "context")


@dataclass(frozen=True)
class Headline:
    """What a reader wants first. ``figures`` are (value, what it is), the main one first."""

    workload: str
    machine: str
    figures: tuple[tuple[str, str], ...]
    limit: str


def headline(result: Result) -> Headline:
    """The headline of a run."""
    return Headline(workload_text(result), machine_text(result), _figures(result), _limit(result))


def workload_text(result: Result) -> str:
    """The workload in words: "llama-2-7b  decode  batch 16  context 2048  bf16"."""
    graph = result.graph
    if graph is None:
        return result.workload
    settings = dict(graph.settings)
    words = [graph.name]
    if "phase" in settings:
        words.append(str(settings.pop("phase")))
    for name in _NAMED:
        if name in settings:
            words.append(f"{name} {settings.pop(name)}")
    dtype = settings.pop("dtype", None)
    words += [f"{name}={value}" for name, value in settings.items()]
    return "  ".join([*words, *([str(dtype)] if dtype else [])])


def machine_text(result: Result) -> str:
    """The machine in words: "tpu-v3 @ 940 MHz   memory: bandwidth"."""
    cores = result.architecture.cores if result.architecture else 1
    times = f"  {cores} cores" if cores > 1 else ""
    return f"{result.arch} @ {HERTZ.format(result.clock_hz)}{times}   memory: {result.memory}"


def tokens_per_pass(result: Result) -> int:
    """New tokens of all sequences in the pass that was simulated; 0 if it is no language model."""
    settings = result.graph.settings if result.graph else {}
    phase, batch = settings.get("phase"), int(settings.get("batch", 1))
    if phase == "decode":
        return batch
    return batch * int(settings.get("tokens", 0)) if phase else 0


def _figures(result: Result) -> tuple[tuple[str, str], ...]:
    decode = _phase(result) == "decode"
    tokens = tokens_per_pass(result)
    found = [(seconds_text(result.seconds) + ("/token" if decode else ""), _time_meaning(result))]
    if tokens and result.seconds:
        found.append((_rate(tokens / result.seconds), "tokens/s"))
    elif result.macs and result.seconds:
        found.append((scaled(result.macs / result.seconds, "MAC/s"), ""))
    energy_pj = result.energy_pj["total"]
    if energy_pj and decode:
        found.append((energy_text(energy_pj / tokens) + "/token", ""))
    elif energy_pj:
        found.append((energy_text(energy_pj), ""))
    return (*found, (f"{result.cycles:,}", "cycles"))


def _phase(result: Result) -> str:
    return str(result.graph.settings.get("phase", "")) if result.graph else ""


def _time_meaning(result: Result) -> str:
    return "to the first token" if _phase(result) == "prefill" else ""


def _rate(per_second: float) -> str:
    return f"{per_second:,.0f}" if per_second >= 100 else f"{per_second:.3g}"


def _limit(result: Result) -> str:
    name = result.bottleneck
    share = result.bounds[name] / result.cycles if result.cycles else 0.0
    if share >= SATURATED:
        return f"bound by {name}, at {percent_text(share)} of its peak"
    return f"nothing is saturated: {name} comes closest, at {percent_text(share)} of its peak"
