"""Broken bytes from sound ones: what a torn copy, a wrong editor or an enemy makes of a file."""

from __future__ import annotations

import gzip
import io
import re
import zipfile
from collections.abc import Callable
from random import Random

# Numbers and words on which parsers stumble: around 31, 32, 63 and 64 bits, not numbers, almost numbers.
TOKENS = tuple(
    b"0 1 -1 2 3 7 007 +1 1.5 -2e3 1e999 -1e-999 nan inf -inf 0x10 1_0 1e5 .5 5. . - + e ' \" % # [ ] { } : = true null"
    b" 255 256 4095 4096 65536 16777216 16777217 2147483647 2147483648 4294967295 4294967296 999999999999999999"
    b" 9223372036854775807 9223372036854775808 18446744073709551615 18446744073709551616 -9223372036854775808"
    b" 99999999999999999999999999999999 0.0000000000000000000000000000000000001 \xef\xbb\xbf \xc3\xa9 \xff \xe2\x80\xa8"
    b" \xd9\xa1 \\u0000 real complex pattern integer general symmetric hermitian skew-symmetric array"
    b" coordinate".split()
)
SPACES = (b" ", b"\n", b"\r\n", b"\t", b"\r", b"\0", b"\x0b", b"\x0c", b"\x1c", b"  ", b"\n\n", b"")


def mutated(rng: Random, data: bytes) -> bytes:
    """Return `data` after one to four changes."""
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        data = rng.choice(_CHANGES)(rng, data)
    return data


def _stretch(rng: Random, data: bytes, most: int) -> tuple[int, int]:
    begin = rng.randrange(len(data) + 1)
    return begin, min(len(data), begin + rng.randrange(most + 1))


def _replace(rng: Random, data: bytes) -> bytes:
    begin, end = _stretch(rng, data, 6)
    return data[:begin] + rng.randbytes(rng.randrange(5)) + data[end:]


def _put_token(rng: Random, data: bytes) -> bytes:
    begin, end = _stretch(rng, data, 3)
    return data[:begin] + rng.choice(SPACES) + rng.choice(TOKENS) + rng.choice(SPACES) + data[end:]


def _change_word(rng: Random, data: bytes) -> bytes:
    words = list(re.finditer(rb"[^\s,\[\]\"]+", data))
    if not words:
        return data
    word = rng.choice(words)
    return data[: word.start()] + rng.choice(TOKENS) + data[word.end() :]


def _change_space(rng: Random, data: bytes) -> bytes:
    spaces = list(re.finditer(rb"\s", data))
    if not spaces:
        return data
    space = rng.choice(spaces)
    return data[: space.start()] + rng.choice(SPACES) + data[space.end() :]


def _flip(rng: Random, data: bytes) -> bytes:
    if not data:
        return data
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def _cut(rng: Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _drop(rng: Random, data: bytes) -> bytes:
    begin, end = _stretch(rng, data, 40)
    return data[:begin] + data[end:]


def _double(rng: Random, data: bytes) -> bytes:
    begin, end = _stretch(rng, data, 40)
    return data[:end] + data[begin:end] * rng.choice((1, 1, 2, 30)) + data[end:]


def _swap_lines(rng: Random, data: bytes) -> bytes:
    lines = data.split(b"\n")
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[i], lines[j] = lines[j], lines[i]
    return b"\n".join(lines)


_CHANGES: tuple[Callable[[Random, bytes], bytes], ...] = (
    _replace,
    _put_token,
    _change_word,
    _change_word,
    _change_word,
    _change_space,
    _flip,
    _cut,
    _drop,
    _double,
    _swap_lines,
)


def garbage(rng: Random, heads: tuple[bytes, ...]) -> bytes:
    """Return lines of tokens that begin, mostly, as a file of its kind does."""
    lines = [b" ".join(rng.choice(TOKENS) for _ in range(rng.randrange(6))) for _ in range(rng.randrange(12))]
    head = rng.choice(heads) if rng.random() < 0.7 else rng.randbytes(rng.randrange(30))
    return head + rng.choice(SPACES).join([b"", *lines])


def zipped(data: bytes) -> bytes:
    return gzip.compress(data, 1, mtime=0)


def unzipped_size(data: bytes) -> int:
    """Return how much of a gzip file comes out before it breaks."""
    size = 0
    try:
        with gzip.open(io.BytesIO(data)) as stream:
            while chunk := stream.read(1 << 16):
                size += len(chunk)
    except (OSError, EOFError, ValueError, gzip.zlib.error):  # type: ignore[attr-defined]
        pass
    return size


def with_changed_member(rng: Random, data: bytes) -> bytes:
    """Return a zip file with one member mutated or replaced, all its checksums right."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        chosen = rng.choice(old.namelist())
        for name in old.namelist():
            content = old.read(name)
            if name == chosen:
                content = npy(rng) if rng.random() < 0.5 else mutated(rng, content)
            if name != chosen or rng.random() < 0.97:
                new.writestr(name, content)
    return out.getvalue()


# fmt: off
_DESCRS = (
    "'<f8'", "'<f4'", "'<i4'", "'<i8'", "'>i8'", "'<u8'", "'<u4'", "'|i1'", "'|b1'", "'<c8'", "'<c16'", "'<f2'",
    "'<f16'", "'|V0'", "'|S0'", "'<U0'", "'|S3'", "'<U3'", "'|O'", "'<M8[s]'", "'<m8'", "[('a','<f4')]", "[('a','|O')]",
    "[('a','<i4',(2,))]", "('<i4',(1000000000,))", "'x'", "7", "None", "'<i4'", "'<i8'",
)
_SHAPES = (
    "()", "(0,)", "(1,)", "(2,)", "(3,)", "(5,)", "(6,)", "(7,)", "(12,)", "(2,3)", "(1,2)", "(-1,)", "(-1,-12)",
    "(1<<62,)", "(1000000000000000000,)", "(0,1000000)", "(2,2**64)", "'abc'", "(1.5,)", "(True,)", "5", "None",
)
# fmt: on


def npy(rng: Random) -> bytes:
    """Return a .npy file whose header may promise anything, often as long as it promises."""
    descr, shape = rng.choice(_DESCRS), rng.choice(_SHAPES)
    order = rng.choice(("False", "False", "True", "2", "None"))
    text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"
    header = text.encode() + b" " * rng.randrange(64) + b"\n"
    size = rng.choice((0, 4, 8, 12, 16, 20, 24, 28, 40, 48, 56, 96))
    items = b"".join(rng.choice(_ITEMS) for _ in range(size // 4 + 2))
    version = rng.choice((b"\x01\0", b"\x01\0", b"\x01\0", b"\x02\0", b"\x03\0", b"\x09\0"))
    length = len(header).to_bytes(2 if version == b"\x01\0" else 4, "little")
    return b"\x93NUMPY" + version + length + header + items[:size]


_ITEMS = tuple(number.to_bytes(4, "little", signed=True) for number in (0, 0, 0, 1, 2, 3, 5, 6, -1, 2**31 - 1))
