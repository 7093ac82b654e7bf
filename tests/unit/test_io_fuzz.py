"""Broken bytes give a matrix or an InputError, from every reader."""

from __future__ import annotations

import gzip
import io
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sparsecomm.errors import InputError
from sparsecomm.io import read_matrix

FEW = settings(max_examples=150)

Mutation = tuple[int, int, bytes]
mutations = st.lists(
    st.tuples(
        st.integers(0, 10**6),
        st.integers(0, 6),
        st.one_of(
            st.binary(max_size=4),
            st.text("0123456789 .-+eE%#\n\r\tnaif", max_size=5).map(str.encode),
            st.sampled_from([b"99999999999", b"-1", b"18446744073709551617", b"1e999", b"nan"]),
        ),
    ),
    min_size=1,
    max_size=4,
)


def mutate(data: bytes, changes: list[Mutation]) -> bytes:
    """Replace, for each (place, length, bytes), that stretch of `data`."""
    for place, length, new in changes:
        at = place % (len(data) + 1)
        data = data[:at] + new + data[at + length :]
    return data


def check(suffix: str, data: bytes, one_based: bool = False) -> None:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("error")
        path = Path(folder) / ("fuzz" + suffix)
        path.write_bytes(data)
        try:
            matrix = read_matrix(str(path), one_based=one_based)
        except InputError as err:
            assert str(err).startswith(str(path))  # noqa: PT017 - both outcomes are fine, this one has a form
            return
        assert isinstance(matrix, sp.csr_array)
        assert matrix.has_canonical_format
        assert np.isfinite(matrix.data).all()
        matrix.check_format(full_check=True)


def npz(kind: str, compressed: bool) -> bytes:
    out = io.BytesIO()
    matrix = sp.random_array((6, 5), density=0.4, rng=np.random.default_rng(1), format=kind)
    sp.save_npz(out, matrix, compressed=compressed)
    return out.getvalue()


VALID = {
    ".mtx": [
        b"%%MatrixMarket matrix coordinate real general\n% c\n3 3 3\n1 1 1.5\n2 3 -2e3\n3 1 0\n",
        b"%%MatrixMarket matrix coordinate complex hermitian\n3 3 2\n1 1 1 0\n3 1 4 5\n",
        b"%%MatrixMarket matrix coordinate pattern symmetric\n3 3 2\n1 1\n3 1\n",
        b"%%MatrixMarket matrix coordinate integer skew-symmetric\n3 3 2\n2 1 4\n3 1 7\n",
        b"%%MatrixMarket matrix array real general\n2 2\n1\n2\n3.5\n4\n",
        b"%%MatrixMarket matrix array real symmetric\n2 2\n1\n2\n3.5\n",
    ],
    ".graph": [b"3 2\n2\n1 3\n2\n", b"% c\n3 2 011 2\n4 4 2 7\n1 1 1 7 3 8\n9 9 2 8\n", b"3 1 100\n1\n1 3\n1 2\n"],
    ".txt": [b"# c\n0 1\n2 1\n", b"0 1 2.5\n1 1 -3\n"],
    ".npz": [npz(kind, compressed) for kind in ("csr", "csc", "coo") for compressed in (True, False)],
}
SUFFIXES = list(VALID)


@pytest.mark.parametrize("suffix", SUFFIXES)
@FEW
@given(data=st.data(), changes=mutations, one_based=st.booleans())
def test_mutated_files(suffix: str, data: st.DataObject, changes: list[Mutation], one_based: bool) -> None:
    whole = data.draw(st.sampled_from(VALID[suffix]))
    check(suffix, mutate(whole, changes), one_based)


@pytest.mark.parametrize("suffix", [".mtx", ".graph", ".txt"])
@FEW
@given(data=st.data(), changes=mutations)
def test_mutated_gzip(suffix: str, data: st.DataObject, changes: list[Mutation]) -> None:
    whole = gzip.compress(data.draw(st.sampled_from(VALID[suffix])), mtime=0)
    check(suffix + ".gz", mutate(whole, changes))


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".mtx.gz"])
@FEW
@example(data=b"\0")
@example(data=b"\n")
@example(data=b"PK\x05\x06" + b"\0" * 18)
@example(data=b"\x1f\x8b\x08\0\0\0\0\0\0\xff")
@example(data=b"%%MatrixMarket matrix coordinate pattern symmetric\n4 4 3\n1 1\n3 2\n4 4\r")
@given(data=st.binary(max_size=200))
def test_random_bytes(suffix: str, data: bytes) -> None:
    check(suffix, data)


@FEW
@given(name=st.sampled_from(["rmat", "er", "grid2d", "grid3d", "grid3d27", "radixnet"]), rest=st.text(max_size=6))
def test_generator_names(name: str, rest: str) -> None:
    try:
        read_matrix(f"{name}:x{rest}")
    except InputError as err:
        assert name in str(err)  # noqa: PT017 - see above


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_valid_files_are_valid(tmp_path: Path, suffix: str) -> None:
    for data in VALID[suffix]:
        path = tmp_path / ("valid" + suffix)
        path.write_bytes(data)
        assert read_matrix(str(path)).nnz > 0
