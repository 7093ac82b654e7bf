"""What a file or a generator may ask for before anything is allocated."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from sparsecomm.errors import InputError

# A row costs memory even when it is empty. Up to this many are free; more need bytes in the file to show for them.
_FREE_ROWS = 1 << 24
_ROWS_PER_BYTE = 4


def check_regular(path: Path) -> int:
    """Return the size of `path` in bytes; refuse what is not a regular, non-empty file (a pipe would hang)."""
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise InputError("is a directory; give a matrix file in it")
    if not stat.S_ISREG(status.st_mode):
        raise InputError("is not a regular file; write the matrix to a file on disk first")
    if status.st_size == 0:
        raise InputError("is empty (0 bytes); expected a matrix: was it written or copied completely?")
    return status.st_size


def memory_limit() -> int:
    """Return the bytes of physical memory of this machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def check_memory(num_bytes: int) -> None:
    """Refuse to go on where `num_bytes` are more than the machine has."""
    limit = memory_limit()
    if num_bytes > limit:
        raise InputError(
            f"needs about {num_bytes / 2**30:.1f} GiB and this machine has {limit / 2**30:.1f} GiB;"
            " choose a smaller matrix or a larger machine"
        )


def check_shape(num_rows: int, num_cols: int, num_bytes: int) -> None:
    """Refuse a shape that is empty, or far larger than `num_bytes` of input can fill."""
    if num_rows < 1 or num_cols < 1:
        raise InputError(f"is {num_rows} x {num_cols}; expected at least one row and one column")
    limit = max(_FREE_ROWS, _ROWS_PER_BYTE * num_bytes)
    if max(num_rows, num_cols) > limit:
        raise InputError(
            f"says it is {num_rows} x {num_cols} but holds {num_bytes} bytes, so nearly all rows or columns are"
            f" empty (limit here {limit}); correct the header or renumber the rows and columns that are used"
        )
