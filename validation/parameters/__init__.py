"""Models read from their published configurations, and networks over images, have the published
number of parameters."""

from __future__ import annotations

from collections.abc import Iterator

from accelsim.results.claims import Claim, Row, truth, within
from accelsim.workload import library_folder, read_config
from accelsim.workload.networks import NETWORKS, image_network

CLAIM = Claim(
    name="parameters",
    statement="parameter counts of published models, from configuration files and of networks",
    source="public model cards (torchvision, timm); GPT-3 derived from the table of the paper",
    tolerance=0.0,
)


def rows() -> Iterator[Row]:
    """One row per model of the library."""
    for r in truth(__name__, "parameters.csv"):
        name = r["model"]
        if name in NETWORKS:
            found = image_network(name, 1, "bf16").parameters
        else:
            found = read_config(library_folder() / f"{name}.json").parameters
        yield within(name, int(r["parameters"]), found, CLAIM.tolerance)
