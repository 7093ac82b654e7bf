"""What is the same on all ranks, and what differs."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TypeVar

from sparsecomm.launch.machine.cpus import format_list

T = TypeVar("T", bound=Hashable)


def by_value(values: Sequence[T]) -> list[tuple[tuple[int, ...], T]]:
    """Return every value with the indexes that have it, in order of the first of them."""
    ranks: dict[T, list[int]] = {}
    for rank, value in enumerate(values):
        ranks.setdefault(value, []).append(rank)
    return [(tuple(having), value) for value, having in ranks.items()]


def describe(values: Sequence[str], ranks: Sequence[int] | None = None) -> list[str]:
    """Return one line for every value, naming the ranks only where they differ.

    Args:
        values: one a rank.
        ranks: their numbers, or None for 0, 1, ...
    """
    groups, numbers = by_value(values), range(len(values)) if ranks is None else ranks
    if len(groups) == 1:
        return [values[0]]
    return [f"{name_ranks([numbers[index] for index in having])}: {value}" for having, value in groups]


def name_ranks(ranks: Sequence[int]) -> str:
    """Return `rank 3` or `ranks 0-3,8`."""
    return f"rank{'s' if len(ranks) > 1 else ''} {format_list(ranks)}"
