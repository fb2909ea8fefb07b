"""Models read from their published configurations have the published number of parameters."""

from __future__ import annotations

from collections.abc import Iterator

from accelsim.results.claims import Claim, Row, truth, within
from accelsim.workload import library_folder, read_config

CLAIM = Claim(
    name="parameters",
    statement="parameter counts of published models, from their configuration files",
    source="public model cards; the GPT-3 rows are derived from the table of the paper",
    tolerance=0.0,
)


def rows() -> Iterator[Row]:
    """One row per model of the library."""
    for r in truth(__name__, "parameters.csv"):
        config = read_config(library_folder() / f"{r['model']}.json")
        yield within(r["model"], int(r["parameters"]), config.parameters, CLAIM.tolerance)
