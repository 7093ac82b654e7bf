"""Lists of whole numbers as lines of text, which is all that some libraries read."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sparsecomm.compiled import compiled
from sparsecomm.typing import IntGlobal, IntRank


@compiled
def text_of_lists(indptr: IntRank, indices: IntRank, heads: IntGlobal) -> npt.NDArray[np.uint8]:
    """Return one line per list, its entries counted from 1; `heads` (one each, or none at all) go before them."""
    text = np.empty(21 * (heads.size + 1) + 12 * indices.size + indptr.size, np.uint8)
    digits = np.empty(20, np.uint8)
    end = 0
    for one in range(indptr.size - 1):
        headed = 1 if heads.size else 0
        for place in range(indptr[one] - headed, indptr[one + 1]):
            value = np.int64(heads[one]) if place < indptr[one] else np.int64(indices[place]) + 1
            count = 0
            while value > 0 or count == 0:
                digits[count] = 48 + value % 10
                value //= 10
                count += 1
            while count > 0:
                count -= 1
                text[end] = digits[count]
                end += 1
            text[end] = 32
            end += 1
        text[end] = 10
        end += 1
    return text[:end]
