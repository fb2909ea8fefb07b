"""Settings of a memory controller: queues, policies, refresh.

Three queue structures. ``window``: FR-FCFS over a read window and a write buffer of every
pseudo-channel.
``per-bank``: a read queue and a write buffer per channel that feed one short queue per bank, served
round robin, as DRAMsim3 does. ``first-ready``: a read and a write queue per channel, from which the
oldest request goes on whose next command is ready, as in Ramulator 2.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from accelsim.errors import AccelsimError, unknown

Policy = Literal["window", "per-bank", "first-ready"]
Page = Literal["open", "closed"]

POLICIES: tuple[Policy, ...] = ("window", "per-bank", "first-ready")
PAGES: tuple[Page, ...] = ("open", "closed")

LARGEST_QUEUE = 4096
MOST_CHANNELS = 1024


@dataclass(frozen=True)
class Controller:
    """One memory controller per channel.

    ``window`` and ``write_buffer`` count bursts. Writes are drained from ``high_watermark`` of them
    down to ``low_watermark``, and while no read waits. ``hit_cap`` is how many column commands
    an open row may serve while an older request waits for another row of the bank.
    ``accepts_per_clock`` requests enter a queue per clock (0: any number). ``command_queue`` is the
    depth of the queues of ``per-bank``. Page ``closed`` precharges with the last queued access to a
    row. Policy ``first-ready`` has no cap on hits: a row that an older request minds is closed.
    """

    policy: Policy = "window"
    page: Page = "open"
    window: int = 32
    write_buffer: int = 32
    high_watermark: int = 26
    low_watermark: int = 7
    hit_cap: int = 16
    accepts_per_clock: int = 8
    command_queue: int = 8
    refresh: bool = True

    def __post_init__(self) -> None:
        for name, word, accepted in (
            ("policy", self.policy, POLICIES),
            ("page", self.page, PAGES),
        ):
            if word not in accepted:
                raise AccelsimError(unknown(name, word, accepted))
        for name in ("window", "write_buffer", "hit_cap", "command_queue"):
            self._check(name, 1, LARGEST_QUEUE)
        self._check("accepts_per_clock", 0, LARGEST_QUEUE)
        self._check("high_watermark", 1, self.write_buffer)
        self._check("low_watermark", 0, self.high_watermark - 1)
        if self.policy != "window" and self.page == "closed":
            raise AccelsimError("page closed needs policy window; accepted: open")

    def _check(self, name: str, least: int, most: int) -> None:
        value = getattr(self, name)
        if not least <= value <= most:
            raise AccelsimError(f"{name} = {value} is out of range; accepted: {least} to {most}")

    @classmethod
    def of_policy(cls, policy: str, *, refresh: bool = True) -> Controller:
        """A policy as whoever made it known has it: Ramulator 2.1's queues for ``first-ready``."""
        if policy == "first-ready":
            return cls(policy="first-ready", low_watermark=6, accepts_per_clock=1, refresh=refresh)
        return cls(policy=policy, refresh=refresh)  # type: ignore[arg-type]  # it is checked

    @classmethod
    def of_dramsim3(cls, settings: Mapping[str, object]) -> Controller:
        """The controller of a DRAMsim3 file (``import_dramsim3``): its queues, its hit cap of 4."""
        for key, accepted in (
            ("queues", "per-bank"),
            ("unified_queue", False),
            ("page", "open"),
            ("refresh", "staggered"),
        ):
            if settings[key] != accepted:
                raise AccelsimError(
                    f"a DRAMsim3 file with {key} = {settings[key]} is not reproduced; "
                    f"accepted: {accepted}"
                )
        return cls(
            policy="per-bank",
            window=int(str(settings["read_queue"])),
            write_buffer=int(str(settings["write_buffer"])),
            high_watermark=int(str(settings["write_buffer"])),
            low_watermark=0,
            hit_cap=4,
            accepts_per_clock=8,
            command_queue=int(str(settings["command_queue"])),
        )
