"""Text files as bytes: decompressed within bounds, and integers read from them many at a time."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sparsecomm.errors import InputError
from sparsecomm.io.limits import check_memory, check_regular
from sparsecomm.typing import IntGlobal

_CHUNK_BYTES = 1 << 20
# Text of numbers shrinks to a tenth, a bomb to a thousandth.
_MOST_UNPACKED, _FREE_UNPACKED = 256, 1 << 24
_MAX_DIGITS = 18  # every number of 18 digits fits int64


def read_text(path: Path) -> bytes:
    """Return the (decompressed) bytes of a text file, ending in a newline.

    The newline and the refusal of NUL bytes are for the readers downstream: scipy's Matrix Market parser reads past
    its buffer without them.
    """
    size = check_regular(path)
    if path.suffix.lower() == ".gz":
        text = _decompress(path)
    else:
        check_memory(2 * size)  # the text and the matrix made of it
        text = path.read_bytes()
    if b"\0" in text:
        raise InputError(f"is binary (a NUL byte at {text.index(0)}); expected text: check the file's suffix")
    return text if text.endswith(b"\n") else text + b"\n"


def _decompress(path: Path) -> bytes:
    out = io.BytesIO()
    try:
        with gzip.open(path) as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                out.write(chunk)
                check_memory(2 * out.tell())
                _check_bomb(out.tell(), path.stat().st_size)
    except (EOFError, zlib.error, gzip.BadGzipFile) as err:
        raise InputError(
            f"is not a complete gzip file ({err}); copy it again, or drop .gz from the name of plain text"
        ) from err
    return out.getvalue()


def _check_bomb(num_bytes: int, packed_bytes: int) -> None:
    if num_bytes > max(_MOST_UNPACKED * packed_bytes, _FREE_UNPACKED):
        raise InputError(
            f"unpacks to more than {_MOST_UNPACKED} times its {packed_bytes} bytes, as no matrix does; if it is one"
            " all the same, unpack it with gunzip and give the text"
        )


def parse_integer_lines(text: bytes) -> tuple[IntGlobal, IntGlobal]:
    """Parse lines of unsigned integers, any number of them on a line.

    Args:
        text: ends in a newline.

    Returns:
        values: (num_values,) int64, in the order of the text.
        counts: (num_lines,) int64; line i holds `counts[i]` of them.
    """
    values, counts, start, num_lines = [], [], 0, 0
    while start < len(text):
        stop = text.find(b"\n", min(start + _CHUNK_BYTES, len(text) - 1)) + 1
        block_values, block_counts = _parse_block(text[start:stop], num_lines)
        values.append(block_values)
        counts.append(block_counts)
        num_lines += block_counts.size
        start = stop
    none = np.zeros(0, dtype=np.int64)
    return np.concatenate([none, *values]), np.concatenate([none, *counts])


def _parse_block(text: bytes, first_line: int) -> tuple[IntGlobal, IntGlobal]:
    block = np.frombuffer(text, dtype=np.uint8)
    digit = (block - np.uint8(ord("0"))) < 10  # smaller codes wrap to large ones
    newline = block == ord("\n")
    bad = ~(digit | newline | (block == ord(" ")) | (block == ord("\t")) | (block == ord("\r")))
    if bad.any():
        raise _not_an_integer(text, int(np.argmax(bad)), first_line)
    edges = np.diff(digit, prepend=False, append=False).nonzero()[0]
    starts, ends = edges[::2], edges[1::2]
    too_long = ends - starts > _MAX_DIGITS
    if too_long.any():
        raise _not_an_integer(text, int(starts[np.argmax(too_long)]), first_line)
    before = np.searchsorted(starts, newline.nonzero()[0])
    return _decimal(block, starts, ends), np.diff(before, prepend=0).astype(np.int64)


def _decimal(block: npt.NDArray[np.uint8], starts: IntGlobal, ends: IntGlobal) -> IntGlobal:
    """Return the numbers whose digits are `block[starts[i]:ends[i]]`, one decimal place of all of them at a time."""
    values = np.zeros(starts.size, dtype=np.int64)
    for place in range(int((ends - starts).max(initial=0))):
        at = ends - 1 - place
        digits = block[np.maximum(at, 0)].astype(np.int64) - ord("0")
        values += np.where(at >= starts, digits, 0) * 10**place
    return values


def _not_an_integer(text: bytes, at: int, first_line: int) -> InputError:
    line = first_line + text.count(b"\n", 0, at) + 1
    end = min(text.find(b"\n", at), at + 20)
    found = text[at:end].decode("ascii", "backslashreplace").strip()
    return InputError(
        f"line {line} after the header (comments not counted) has {found!r}; expected whole numbers"
        f" of at most {_MAX_DIGITS} digits: round or remove it"
    )
