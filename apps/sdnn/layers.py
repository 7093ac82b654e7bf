"""One layer on one rank: products of batches, with bias, ReLU and clip while a row is in the cache."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from sparsecomm.apps.sdnn.batches import Batches, Dense, widths
from sparsecomm.apps.sdnn.network import CLIP
from sparsecomm.apps.sdnn.share import Share
from sparsecomm.collectives.exchange import Exchange
from sparsecomm.collectives.pending import Pending
from sparsecomm.kernels import Epilogue, prepare
from sparsecomm.typing import Bools


def epilogue_of(bias: float) -> Epilogue:
    """Return what follows a product: bias, ReLU and clip.

    The challenge adds the bias only where a sum is not zero. It is never positive, so that a sum of zero stays zero.
    """
    return Epilogue(bias, 0.0, CLIP)


def load_loops(most: int, bias: float) -> None:
    """Compile the loops of all widths, or load them, so that no layer waits for it."""
    one = prepare(csr_array(np.ones((1, 1), dtype=np.float32)), implementation="compiled")
    for width in widths(most):
        x, out = np.zeros((2, 1, width), dtype=np.float32)
        one.multiply(x, out)
        one.multiply(x, out, epilogue=epilogue_of(bias))


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
    blocks, epilogue = batches.blocks, epilogue_of(bias)
    under_way = exchange.start(blocks[0]) if exchange and blocks else None
    for number, x in enumerate(blocks):
        following = exchange.start(blocks[number + 1]) if exchange and number + 1 < len(blocks) else None
        _multiply(share, x, under_way, spare, epilogue)
        alive[number] = spare.max(axis=0, initial=0) > 0
        blocks[number], spare, under_way = spare, x, following
    return alive.reshape(-1)[: batches.ids.size]


def _multiply(share: Share, x: Dense, under_way: Pending | None, out: Dense, epilogue: Epilogue) -> None:
    own, ghost = share.own, share.ghost
    own.multiply(x, out, epilogue=None if ghost else epilogue)
    if under_way is not None:
        ghosts = under_way.wait()  # also where only others are sent something
        if ghost is not None:
            ghost.multiply(ghosts, out, beta=1.0, epilogue=epilogue)
