"""Loops compiled by numba; a module that uses this is imported where its loops run, never at the top of another."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

from numba import njit

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a loop over arrays; the machine code is kept beside the source, or in the user's cache folder."""
    return cast("Callable[P, R]", njit(cache=True)(function))
