"""Hitting sets: few choices for every key so that each of its items has one that it accepts."""

from __future__ import annotations

import numpy as np

from sparsecomm.table import number, run_starts, sort_order
from sparsecomm.typing import Bools, IntGlobal


def hitting_choices(key: IntGlobal, item: IntGlobal, choice: IntGlobal) -> Bools:
    """Return a mask of entries whose (key, choice) is taken, so that every (key, item) has one that is.

    Choices that an item has no alternative to come first; then each key takes the choice that most of its open items
    accept, the smallest of equals, until none is open. What a key takes depends on its own entries alone, and it takes
    no more choices than it has.

    Args:
        key, item, choice: (num_entries,); entry i says that item `item[i]` of key `key[i]` accepts `choice[i]`. No
            entry twice.

    Source: Chvatal 1979 (greedy cover).
    """
    if key.size == 0:
        return np.zeros(0, dtype=np.bool_)
    pair, item = number([key, choice]), number([key, item])
    chosen = np.zeros(int(pair.max()) + 1, dtype=np.bool_)
    chosen[pair[np.bincount(item)[item] == 1]] = True
    waiting = np.arange(key.size)
    while True:
        hit = np.zeros(int(item.max()) + 1, dtype=np.bool_)
        hit[item[waiting[chosen[pair[waiting]]]]] = True
        waiting = waiting[~hit[item[waiting]]]
        if waiting.size == 0:
            return chosen[pair]
        chosen[_most_accepted(key[waiting], pair[waiting])] = True


def _most_accepted(key: IntGlobal, pair: IntGlobal) -> IntGlobal:
    """Return for each key the pair that occurs most often, the smallest of equals."""
    count = np.bincount(pair)
    pairs = np.flatnonzero(count)
    key_of = np.empty(count.size, dtype=np.int64)
    key_of[pair] = key
    keys = key_of[pairs]
    order = sort_order([keys, -count[pairs], pairs])
    return pairs[order[run_starts([keys[order]])]]
