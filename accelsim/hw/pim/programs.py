"""How operators become streams of PIM commands, by the name a family gives its programs, and which
of them compute products of tile programs."""

from __future__ import annotations

from collections.abc import Callable

from accelsim.errors import AccelsimError, unknown
from accelsim.hw.pim.attacc_products import AttaccProducts
from accelsim.hw.pim.attacc_programs import attacc_streams
from accelsim.hw.pim.bank_products import BankProducts
from accelsim.hw.pim.bank_programs import bank_streams
from accelsim.hw.pim.bit_serial_programs import bit_serial_streams
from accelsim.hw.pim.family import Family
from accelsim.hw.pim.hbm_pim_products import HbmPimProducts
from accelsim.hw.pim.hbm_pim_programs import hbm_pim_streams
from accelsim.hw.pim.newton_products import NewtonProducts
from accelsim.hw.pim.newton_programs import newton_streams
from accelsim.hw.pim.operators import Operator
from accelsim.hw.pim.products import Products
from accelsim.hw.pim.stream import PimStream

Program = Callable[[Family, Operator], list[tuple[PimStream, int]]]

PROGRAMS: dict[str, Program] = {
    "newton": newton_streams,
    "banks": bank_streams,
    "hbm-pim": hbm_pim_streams,
    "attacc": attacc_streams,
    "bit-serial": bit_serial_streams,
}
"""Streams of the channels that differ, and how many channels have each."""

PRODUCTS: dict[str, Products] = {
    "newton": NewtonProducts(),
    "banks": BankProducts(),
    "hbm-pim": HbmPimProducts(),
    "attacc": AttaccProducts(),
}
"""Products of tile programs (hw/pim/products)."""


def products_of(family: Family) -> Products:
    """The products of a family; AccelsimError if tile programs have none of them."""
    if family.programs not in PRODUCTS:
        raise AccelsimError(
            f"family {family.name} (programs: {family.programs}) computes no products of tile"
            f" programs; accepted: families with programs: {', '.join(PRODUCTS)}"
        )
    return PRODUCTS[family.programs]


def streams_of(family: Family, operator: Operator) -> list[tuple[PimStream, int]]:
    """The streams of an operator.

    Raises:
        AccelsimError: programs that do not exist, an operator that the family does not compute, or
            more rows than its banks have.
    """
    if family.programs not in PROGRAMS:
        raise AccelsimError(unknown("programs", family.programs, PROGRAMS))
    return PROGRAMS[family.programs](family, operator)
