"""A product as a table for people, in the manner of opt_einsum's PathInfo."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sparsecomm.cost import CostModel
from sparsecomm.plan import Plan
from sparsecomm.product import Product
from sparsecomm.table import run_starts
from sparsecomm.typing import IntRank


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
        "-" * 86,
        f"  {'plan':<8}{'stage':<7}{'level':<10}{'rows':>14}{'messages':>11}{'MB':>12}"
        f"{'busiest rank':>14}{'rounds':>8}",
        "-" * 86,
    ]
    for name, plan in (("gather", product.gather), ("scatter", product.scatter)):
        lines += _stage_lines(name, plan, width * itemsize)
    return "\n".join(lines)


def _stage_lines(name: str, plan: Plan, row_bytes: int) -> list[str]:
    lines = []
    for number, stage in enumerate(plan.stages):
        starts = run_starts([stage.dst, stage.src])
        messages, rounds = int(starts.sum()), _most(stage.src[starts], stage.dst[starts])
        busiest = _most(stage.src, stage.dst)
        lines.append(
            f"  {name:<8}{number:<7}{plan.topology.levels[stage.level].name:<10}{stage.num_copies:>14,}{messages:>11,}"
            f"{stage.num_copies * row_bytes / 1e6:>12,.3f}{busiest:>14,}{rounds:>8,}"
        )
    return lines


def _most(src: IntRank, dst: IntRank) -> int:
    """Return how often the rank that is most often at one side is there."""
    return max(int(np.bincount(side, minlength=1).max()) for side in (src, dst))
