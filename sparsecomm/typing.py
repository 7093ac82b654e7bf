"""Array types by role; every other module takes its index types from here.

`IntRank` numbers ranks, levels, stages and slots of one rank (at most 2**31 - 1 of them); `IntGlobal` numbers
rows of a whole matrix, nonzeros and byte offsets, which pass 2**31 long before anything else does.
"""

from __future__ import annotations

from typing import TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

IntRank: TypeAlias = npt.NDArray[np.int32]
IntGlobal: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float64]
Bools: TypeAlias = npt.NDArray[np.bool_]
Numbers: TypeAlias = npt.NDArray[np.generic]

MAX_SLOTS = 2**31 - 1


_Scalar = TypeVar("_Scalar", bound=np.generic)


def frozen(array: npt.NDArray[_Scalar]) -> npt.NDArray[_Scalar]:
    """Return `array` marked read-only (a view, so that the caller's own handle stays as it was)."""
    view = array.view()
    view.flags.writeable = False
    return view
