"""The loop of annealing an order of rows; imported where it runs."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparsecomm.compiled import compiled
from sparsecomm.typing import IntGlobal


@compiled
def anneal(
    indptr: Any, indices: Any, users_indptr: Any, users: Any, start: IntGlobal, block_rows: int, steps: int, seed: int
) -> IntGlobal:
    """Return an order whose blocks have fewer columns in all, after so many tried swaps.

    A row goes to the block of another that shares a column with it, for a row that is drawn there.

    Args:
        indptr, indices: of the matrix by rows.
        users_indptr, users: the rows of every column.
        start: the order to begin with.
        block_rows: rows of a block.
        steps: swaps to try.
        seed: of what is drawn.
    """
    state = np.array([seed], np.uint64)
    order, place_of = start.copy(), np.empty(start.size, np.int64)
    num_blocks = (order.size + block_rows - 1) // block_rows
    used = np.zeros((num_blocks, users_indptr.size - 1), np.int32)  # nonzeros of a block in a column
    for place in range(order.size):
        place_of[order[place]] = place
        _add(used[place // block_rows], indptr, indices, order[place], 1)
    for step in range(steps):
        warmth = 0.5 * (1.0 - step / steps)
        here = _draw(state, order.size)
        row = order[here]
        if indptr[row] == indptr[row + 1]:
            continue
        column = indices[indptr[row] + _draw(state, indptr[row + 1] - indptr[row])]
        friend = users[users_indptr[column] + _draw(state, users_indptr[column + 1] - users_indptr[column])]
        first = place_of[friend] // block_rows * block_rows
        there = first + _draw(state, min(block_rows, order.size - first))
        mine, theirs = used[here // block_rows], used[there // block_rows]
        if here // block_rows == there // block_rows:
            continue
        change = _add(mine, indptr, indices, order[here], -1) + _add(theirs, indptr, indices, order[there], -1)
        change += _add(mine, indptr, indices, order[there], 1) + _add(theirs, indptr, indices, order[here], 1)
        if change <= 0 or (warmth > 0 and _draw(state, 1 << 30) < (1 << 30) * np.exp(-change / warmth)):
            order[here], order[there] = order[there], order[here]
            place_of[order[here]], place_of[order[there]] = here, there
        else:
            _add(mine, indptr, indices, order[there], -1)
            _add(theirs, indptr, indices, order[here], -1)
            _add(mine, indptr, indices, order[here], 1)
            _add(theirs, indptr, indices, order[there], 1)
    return order


@compiled
def _draw(state: Any, below: int) -> int:
    """Return a number of 0 .. below - 1, the same for a seed everywhere.

    Source: the linear congruential generator of Knuth's MMIX.
    """
    state[0] = state[0] * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
    return int(np.int64(state[0] >> np.uint64(33)) % below)


@compiled
def _add(used: Any, indptr: Any, indices: Any, row: int, sign: int) -> int:
    """Add a row to a block, or take it out; return by how many columns the block grows."""
    grown = 0
    for place in range(indptr[row], indptr[row + 1]):
        before = used[indices[place]]
        used[indices[place]] = before + sign
        if before == 0:
            grown += 1
        elif before + sign == 0:
            grown -= 1
    return grown
