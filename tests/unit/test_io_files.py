"""Readers of files: how one is chosen, what it refuses before it reads, and what real files hold."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp

from sparsecomm.io import read_matrix
from sparsecomm.io.matrix import register_reader
from sparsecomm.io.mtx import read_mtx
from tests.read_files import MTX, Write, assert_equal, check_canonical, error


def test_names_what_it_knows_when_it_knows_nothing() -> None:
    message = error("matrix.xlsx")
    assert ".mtx.gz" in message
    assert ".npz" in message
    assert "rmat:SCALE[:EDGEFACTOR[:SEED]]" in message


@pytest.mark.parametrize("name", ["no.mtx", "no.mtx.gz", "no.npz", "no.graph", "no.txt", "no/such/dir/no.edges"])
def test_missing_file(name: str) -> None:
    assert "does not exist" in error(name)


def test_folder_given_as_a_file(tmp_path: Path) -> None:
    folder = tmp_path / "folder.mtx"
    folder.mkdir()
    assert "is a directory" in error(str(folder))
    assert "is a directory" in error(str(tmp_path))


def test_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mtx")
    assert "not a regular file" in error(str(tmp_path / "pipe.mtx"))


def test_unreadable_file(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)  # file modes do not stop root
    assert "Permission denied" in error(write("a.mtx", MTX + "1 1 1\n1 1 1\n"))


@pytest.mark.parametrize("name", ["a\0.mtx", "a" * 5000 + ".mtx", "\udcff.mtx", ""])
def test_impossible_names(name: str) -> None:
    error(name)


@pytest.mark.parametrize("name", ["a.mtx", "a.npz", "a.graph", "a.txt", "a.tsv", "a.edges"])
def test_empty_file(write: Write, name: str) -> None:
    assert "empty" in error(write(name, b""))


@pytest.mark.parametrize("name", ["a.mtx.gz", "a.graph.gz", "a.txt.gz"])
def test_nothing_in_gzip(write: Write, name: str) -> None:
    error(write(name, b""))


@pytest.mark.parametrize("name", ["a.mtx", "a.graph", "a.txt"])
def test_binary_given_as_text(write: Write, name: str) -> None:
    assert "binary" in error(write(name, b"1 1\n\0\0\0"))


def test_more_than_memory_is_refused(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparsecomm.io.limits.memory_limit", lambda: 1 << 20)
    text = MTX + "1 1 1\n" + "%" * 3_000_000
    assert "GiB" in error(write("a.mtx", text))
    assert "GiB" in error(write("a.mtx.gz", text))


def test_suffix_in_capitals_and_a_second_reader(write: Write) -> None:
    assert read_matrix(write("A.MTX", MTX + "1 1 1\n1 1 1\n")).nnz == 1
    with pytest.raises(ValueError, match="already"):
        register_reader(".mtx", read_mtx)


@pytest.mark.parametrize("dtype", [np.float32, "float64", np.complex64])
def test_dtype(write: Write, dtype: Any) -> None:
    matrix = read_matrix(write("a.mtx", MTX + "2 2 1\n1 2 0.1\n"), dtype=dtype)
    assert matrix.dtype == np.dtype(dtype)
    assert matrix[0, 1] == np.dtype(dtype).type(0.1)


def test_dtype_too_narrow(write: Write) -> None:
    assert "inf in float32" in error(write("a.mtx", MTX + "2 2 1\n1 2 1e300\n"), dtype=np.float32)
    text = "%%MatrixMarket matrix coordinate complex general\n1 1 1\n1 1 2 3\n"
    assert "complex" in error(write("b.mtx", text), dtype=np.float32)


REAL = {
    "matrices/xenon1.mtx.gz": ((48_600, 48_600), 1_181_120),
    "matrices/c-62.mtx.gz": ((41_731, 41_731), 559_343),
    "matrices/cage10.mtx.gz": ((11_397, 11_397), 150_645),
    "matrices/bcsstk13.mtx.gz": ((2_003, 2_003), 83_883),
    "matrices/west0479.mtx.gz": ((479, 479), 1_910),
    "matrices/copter2.graph.gz": ((55_476, 55_476), 704_476),
    "matrices/mdual.graph.gz": ((258_569, 258_569), 1_026_264),
    "matrices/cnr-2000.npz": ((325_557, 325_557), 3_216_152),
    "matrices/ego-twitter.npz": ((81_306, 81_306), 2_684_606),
    "matrices/soc-slashdot0902.npz": ((82_168, 82_168), 1_086_763),
    "matrices/email-enron.npz": ((36_692, 36_692), 367_662),
    "matrices/gene_go_all.npz": ((77_614, 22_963), 2_114_381),
    "sparse_dnn/n1024-l1.mtx": ((1_024, 1_024), 32_768),
    "sparse_dnn/n1024-l6.mtx": ((1_024, 1_024), 32_768),
    "sparse_dnn/sparse-images-1024_subset.mtx": ((1_200, 1_024), 122_713),
    "sparse_dnn/neuron1024-l120-categories_subset.mtx": ((1_200, 1), 19),
    "pruned_dnn/squeezenet_conv1.npz": ((96, 147), 13_902),
}


@pytest.mark.parametrize("name", REAL)
def test_real_files(data_dir: Any, name: str) -> None:
    path = data_dir / name
    matrix = read_matrix(str(path))
    shape, nnz = REAL[name]
    check_canonical(matrix)
    assert matrix.shape == shape
    assert matrix.nnz == nnz
    if ".mtx" in name:
        assert_equal(matrix, scipy.io.mmread(path))
    elif name.endswith(".npz"):
        assert_equal(matrix, sp.load_npz(path))
    else:
        assert (matrix != matrix.T).nnz == 0


def test_real_npz_that_is_no_matrix(data_dir: Any) -> None:
    assert "holds ['adj_indices', 'adj_indptr'" in error(str(data_dir / "gnn/amazon_photo.npz"))
