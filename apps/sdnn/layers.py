"""One layer on one rank: products of batches, then bias, ReLU and clip while a batch is in the cache."""

from __future__ import annotations

import numpy as np

from sparsecomm.apps.sdnn.batches import Batches, Dense
from sparsecomm.apps.sdnn.network import CLIP
from sparsecomm.apps.sdnn.share import Share
from sparsecomm.collectives.exchange import Exchange
from sparsecomm.collectives.pending import Pending
from sparsecomm.kernels import spmm
from sparsecomm.typing import Bools


def run_layer(share: Share, batches: Batches, exchange: Exchange | None, bias: float, spare: Dense) -> Bools:
    """Replace the activations of all batches by those of the next layer.

    Args:
        share: the weights of this rank.
        batches: its activations.
        exchange: brings the activations of other ranks; None where there are none to bring.
        bias: of every neuron.
        spare: a block like those of `batches`, overwritten; it takes the place of one of them.

    Returns:
        (num_images,) whether the image has an activation on this rank.
    """
    alive = np.zeros((len(batches.blocks), batches.width), dtype=np.bool_)
    blocks = batches.blocks
    under_way = exchange.start(blocks[0]) if exchange and blocks else None
    for number, x in enumerate(blocks):
        following = exchange.start(blocks[number + 1]) if exchange and number + 1 < len(blocks) else None
        _multiply(share, x, under_way, spare)
        alive[number] = activate(spare, bias)
        blocks[number], spare, under_way = spare, x, following
    return alive.reshape(-1)[: batches.ids.size]


def _multiply(share: Share, x: Dense, under_way: Pending | None, out: Dense) -> None:
    spmm(share.own, x, out)
    if under_way is not None:
        ghosts = under_way.wait()
        if share.ghost is not None and share.ghost.nnz:
            spmm(share.ghost, ghosts, out, accumulate=True)


def activate(sums: Dense, bias: float) -> Bools:
    """Turn sums into activations in place and return which columns have one.

    The challenge adds the bias only where a sum is not zero. It is never positive, so that a sum of zero stays zero.

    Args:
        sums: (rows, width).
        bias: of every neuron.
    """
    sums += np.float32(bias)
    np.clip(sums, 0, np.float32(CLIP), out=sums)
    alive: Bools = sums.max(axis=0, initial=0) > 0
    return alive
