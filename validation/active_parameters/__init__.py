"""Mixtures of experts have the published number of weights that one token meets.

Publications give two or three digits and do not say how they count embedding tables; here a token
meets its row of them.
"""

from __future__ import annotations

from collections.abc import Iterator

from accelsim.results.claims import Claim, Row, truth, within
from accelsim.workload import library_folder, read_config

CLAIM = Claim(
    name="active-parameters",
    statement="weights that one token meets in published mixtures of experts",
    source="Mistral's announcements; arXiv 2405.04434 and 2412.19437, to two or three digits",
    tolerance=0.025,
)


def rows() -> Iterator[Row]:
    """One row per mixture of the library."""
    for r in truth(__name__, "active.csv"):
        active = read_config(library_folder() / f"{r['model']}.json").active_parameters
        yield within(r["model"], float(r["billions"]) * 1e9, active, CLAIM.tolerance)
