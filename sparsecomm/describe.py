"""A product as a table for people, in the manner of opt_einsum's PathInfo."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sparsecomm.cost import CostModel
from sparsecomm.plan import Plan
from sparsecomm.product import Product
from sparsecomm.table import run_starts


def describe_product(product: Product, width: int, dtype: npt.DTypeLike) -> str:
    """Return the header and one row per stage; see `Product.describe`."""
    itemsize = np.dtype(dtype).itemsize
    volume = product.volume()
    estimate = CostModel(product.topology).estimate(volume, width, itemsize)
    fullest = int(product.memory(width, dtype).max())
    lines = [
        f"  Strategy:               {product.strategy}",
        f"  Topology:               {product.topology}",
        f"  Width and dtype:        {width} x {np.dtype(dtype).name}",
        f"  Rows over the network:  {int(volume.rows[-1]):,}",
        f"  Fullest rank:           {fullest / 1e6:,.3f} MB of slots and message buffers",
        f"  Predicted exchange:     {estimate.communication_s * 1e3:.3f} ms, nothing hidden behind compute",
        "-" * 78,
        f"  {'plan':<8}{'stage':<7}{'level':<10}{'rows':>14}{'messages':>11}{'MB':>12}{'busiest rank':>14}",
        "-" * 78,
    ]
    for name, plan in (("gather", product.gather), ("scatter", product.scatter)):
        lines += _stage_lines(name, plan, width * itemsize)
    return "\n".join(lines)


def _stage_lines(name: str, plan: Plan, row_bytes: int) -> list[str]:
    lines = []
    for number, stage in enumerate(plan.stages):
        messages = int(run_starts([stage.dst, stage.src]).sum())
        ends = [np.bincount(side, minlength=1).max() for side in (stage.src, stage.dst)]
        lines.append(
            f"  {name:<8}{number:<7}{plan.topology.levels[stage.level].name:<10}{stage.num_copies:>14,}{messages:>11,}"
            f"{stage.num_copies * row_bytes / 1e6:>12,.3f}{max(ends):>14,}"
        )
    return lines
