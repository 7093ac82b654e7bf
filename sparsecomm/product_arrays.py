"""A whole product as a few long arrays, which a process that plans for all ranks writes and maps at once."""

from __future__ import annotations

import zlib
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from sparsecomm.errors import InputError
from sparsecomm.layout import Layouts
from sparsecomm.plan import Plan, Stage
from sparsecomm.product import Product
from sparsecomm.store import Header, load_array, save_arrays
from sparsecomm.topology import Topology

_SIDES = ("gather", "scatter")


def save_product_arrays(folder: Path, product: Product) -> Header:
    """Write the arrays of a product to a folder and return what its header must say."""
    arrays = {"multiplier": product.multiplier}
    header: Header = {"strategy": product.strategy, "relays": product.relays}
    for side in _SIDES:
        plan: Plan = getattr(product, side)
        whole, values = _split(plan, ("topology", "stages"))
        arrays |= {f"{side}.{name}": array for name, array in whole.items()}
        header[side] = {"values": values, "stages": []}
        for number, stage in enumerate(plan.stages):
            part, values = _split(stage, ())
            arrays |= {f"{side}.{number}.{name}": array for name, array in part.items()}
            header[side]["stages"].append(values)
    save_arrays(folder, "product", arrays)
    return header | {"arrays": {name: _checksum(array) for name, array in arrays.items()}}


def load_product_arrays(folder: Path, header: Header, topology: Topology, layouts: Layouts) -> Product:
    """Map what `save_product_arrays` wrote.

    Args:
        folder, header: of the entry.
        topology, layouts: it was made for.

    Raises:
        InputError: a file is missing or damaged.
    """
    arrays = {name: load_array(folder, "product", name) for name in header["arrays"]}
    for name, expected in header["arrays"].items():
        if _checksum(arrays[name]) != expected:
            raise InputError(f"{folder}: array {name} is damaged; plan again")
    gather, scatter = (_plan(side, header[side], arrays, topology) for side in _SIDES)
    return Product(header["strategy"], gather, scatter, arrays["multiplier"], layouts, header["relays"])


def _checksum(array: np.ndarray[Any, Any]) -> int:
    return zlib.crc32(np.ascontiguousarray(array).data)


def _split(owner: Plan | Stage, without: tuple[str, ...]) -> tuple[dict[str, np.ndarray[Any, Any]], Header]:
    """Return the fields of a plan or stage that are arrays, and those that are numbers."""
    found = {field.name: getattr(owner, field.name) for field in fields(owner) if field.name not in without}
    arrays = {name: value for name, value in found.items() if isinstance(value, np.ndarray)}
    return arrays, {name: value for name, value in found.items() if name not in arrays}


def _plan(side: str, header: Header, arrays: dict[str, Any], topology: Topology) -> Plan:
    def named(prefix: str) -> dict[str, Any]:
        cut = len(prefix)
        return {
            name[cut:]: array for name, array in arrays.items() if name.startswith(prefix) and "." not in name[cut:]
        }

    stages = [Stage(**values, **named(f"{side}.{number}.")) for number, values in enumerate(header["stages"])]
    return Plan(topology=topology, stages=tuple(stages), **header["values"], **named(f"{side}."))
