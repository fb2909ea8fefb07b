"""Simulate every point on every system and write points.csv beside this file.

    python -m accelsim.validation.neupims.record      about five minutes of one core

Delete points.csv first: rows that are there are kept. The claim reads that table and simulates a
sample of it again.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import astuple, fields, replace
from pathlib import Path

from .comparison import recorded as recorded_layers
from .systems import (
    BALANCED,
    GPU,
    MAIN,
    MODELS,
    ON_GPU,
    POINTS,
    READINGS,
    STEPS,
    VARIANTS,
    Layer,
    Point,
    layer,
)

FILE = Path(__file__).with_name("points.csv")
NAMES = [one.name for one in fields(Layer)]
OTHER_SEED = 1
SPREAD = ((4, 256), (2, 128), (1, 64))
"""Four devices: those that share a layer, and requests of each of the 4 / tp pipeline stages."""


def recorded() -> Iterator[tuple[str, Point]]:
    """What is simulated: all points; steps, variants and other readings of one model; another
    seed; layers shared by fewer devices."""
    for system in MAIN:
        yield from ((system.name, point) for point in POINTS)
    yield from ((GPU.name, point) for point in ON_GPU)
    small = POINTS[: len(POINTS) // len(MODELS)]
    for system in READINGS:
        yield from ((system.name, point) for point in small)
    shared = [point for point in small if point.data == "sharegpt"]
    for system in (*STEPS, *VARIANTS):
        yield from ((system.name, point) for point in shared)
    for system in MAIN:
        yield from ((system.name, replace(point, seed=OTHER_SEED)) for point in shared)
    for tp, batch in SPREAD:
        yield BALANCED.name, Point(MODELS[0], "sharegpt", batch, tp)


def main() -> None:
    """Write the table; rows that it has are kept, so that a run may be gone on with."""
    there = dict(recorded_layers()) if FILE.exists() else {}
    with FILE.open("w", newline="", encoding="utf-8") as file:
        file.write("# one decoder layer per row, by accelsim.validation.neupims.record\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["system", "model", "data", "batch", "tp", "seed", *NAMES])
        for system, point in dict.fromkeys(recorded()):
            found = there.get((system, point)) or layer(system, point)
            shares = [f"{value:.6g}" for value in astuple(found)]
            writer.writerow([system, *astuple(point), *shares])
            file.flush()


if __name__ == "__main__":
    main()
