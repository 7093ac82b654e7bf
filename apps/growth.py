"""Matrices that grow with the machine, for weak scaling."""

from __future__ import annotations

from fractions import Fraction
from typing import Final

from sparsecomm.errors import InputError

# The power of the first number of a generator with which its rows grow; None where each step doubles them.
_POWER: Final = {"rmat": None, "er": 1, "grid2d": 1, "grid3d": 3, "grid3d27": 3}


def grown(spec: str, factor: Fraction) -> str:
    """Return the generator like `spec` whose matrix has `factor` times as many rows.

    Args:
        spec: of a generator.
        factor: how many times.

    Raises:
        InputError: `spec` does not grow, or not by this factor.

    Example:
        >>> grown("rmat:12:8", Fraction(4)), grown("grid2d:64", Fraction(2)), grown("grid3d:10", Fraction(8))
        ('rmat:14:8', 'grid2d:128:64', 'grid3d:20')
    """
    name, *numbers = spec.split(":")
    if name not in _POWER or not numbers or not numbers[0].isdecimal():
        raise InputError(f"{spec} cannot grow with the machine; for weak scaling give one of {', '.join(_POWER)}")
    first, power = int(numbers[0]), _POWER[name]
    new = _log2(factor, first) if power is None else _times_root(first, factor, power)
    if new is None:
        raise InputError(f"{spec} cannot grow by {factor}; choose node counts whose ratios it can follow")
    if name == "grid2d" and len(numbers) == 1:
        numbers.append(numbers[0])
    return ":".join([name, str(new), *numbers[1:]])


def _log2(factor: Fraction, first: int) -> int | None:
    steps = factor.numerator.bit_length() - factor.denominator.bit_length()
    return first + steps if factor == Fraction(2) ** steps else None


def _times_root(first: int, factor: Fraction, power: int) -> int | None:
    new = round((first**power * factor) ** (1 / power))
    return new if new**power == first**power * factor else None
