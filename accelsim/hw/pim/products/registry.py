"""Products of tile programs, by the name that a family gives its programs."""

from __future__ import annotations

from accelsim.errors import AccelsimError
from accelsim.hw.pim.family import Family
from accelsim.hw.pim.products.attacc import AttaccProducts
from accelsim.hw.pim.products.banks import BankProducts
from accelsim.hw.pim.products.hbm_pim import HbmPimProducts
from accelsim.hw.pim.products.newton import NewtonProducts
from accelsim.hw.pim.products.product import Products

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
