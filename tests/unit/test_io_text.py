"""METIS graphs and edge lists: what each form means, and what each kind of broken file is answered with."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from sparsecomm.io import read_matrix
from tests.read_files import Write, assert_equal, check_canonical, error, peak_bytes


@pytest.mark.parametrize(
    ("text", "dense"),
    [
        ("3 2\n2\n1 3\n2\n", [[0, 1, 0], [1, 0, 1], [0, 1, 0]]),
        ("% c\n3 1\n%c\n\n3\n% c\n2\n\n\n", [[0, 0, 0], [0, 0, 1], [0, 1, 0]]),
        ("3 1\n2\n1\n\n", [[0, 1, 0], [1, 0, 0], [0, 0, 0]]),
        ("3 1\n2\n1\n", [[0, 1, 0], [1, 0, 0], [0, 0, 0]]),
        ("2 1 1\n2 7\n1 0\n", [[0, 7], [0, 0]]),
        ("2 1 001\r\n 2 7\r\n1\t9\r\n", [[0, 7], [9, 0]]),
        ("2 1 10\n5 2\n6 1\n", [[0, 1], [1, 0]]),
        ("2 1 011 2\n5 5 2 3\n6 6 1 4\n", [[0, 3], [4, 0]]),
        ("2 1 100\n5 2\n6 1\n", [[0, 1], [1, 0]]),
        ("2 1 111 3\n9 5 5 5 2 3\n9 6 6 6 1 4", [[0, 3], [4, 0]]),
        ("1 0\n\n", [[0]]),
    ],
)
@pytest.mark.parametrize("name", ["a.graph", "a.graph.gz"])
def test_metis(write: Write, name: str, text: str, dense: list[list[int]]) -> None:
    matrix = read_matrix(write(name, text))
    check_canonical(matrix)
    np.testing.assert_array_equal(matrix.toarray(), dense)


def test_metis_keeps_a_weight_of_zero(write: Write) -> None:
    assert read_matrix(write("a.graph", "2 1 1\n2 7\n1 0\n")).nnz == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("\n", "METIS header"),
        ("3\n", "METIS header"),
        ("3 2 2\n", "METIS header"),
        ("a b\n", "METIS header"),
        ("0 0\n", "at least one row"),
        ("3 3\n2\n1 3\n2\n", "lists 4 neighbours but its header says 3 edges; expected 6"),
        ("3 1\n2\n1 3\n2\n", "expected 2"),
        ("2 1\n2\n0\n", "vertex 2 has neighbour 0; expected 1 to 2"),
        ("2 1\n3\n1\n", "vertex 1 has neighbour 3"),
        ("4 1\n2\n1\n", "has 2 lines after the header; expected 4"),
        ("2 2\n2\n1 2\n1\n", "has 3 lines after the header; expected 2"),
        ("2 1\n2\n1 x\n", "line 2 after the header (comments not counted) has 'x'"),
        ("2 1\n2\n-1\n", "has '-1'"),
        ("2 1\n2\n1.5\n", "has '.5'"),
        ("2 1\n2\n99999999999999999999\n", "at most 18 digits"),
        ("2 1 1\n2\n1 4\n", "vertex 1 has 1 numbers on its line"),
        ("2 1 10 3\n1 2\n1 1\n", "check FMT and NCON"),
        ("100000000000 1\n2\n1\n", "100000000000 x 100000000000"),
        ("9000000 1\n2\n1\n", "has 2 lines"),
    ],
)
def test_metis_refused(write: Write, text: str, says: str) -> None:
    path = write("a.graph", text)
    assert peak_bytes(lambda: error(path)) < 8 << 20
    assert says in error(path)


def test_metis_across_blocks(write: Write, monkeypatch: pytest.MonkeyPatch, random_matrix: sp.csr_array) -> None:
    half = sp.random_array((40, 40), density=0.2, rng=np.random.default_rng(3))
    graph = sp.csr_array(sp.triu(half, 1) + sp.triu(half, 1).T)
    graph.data[:] = 1.0
    lines = [f"40 {graph.nnz // 2}"]
    lines += [" ".join(str(u + 1) for u in graph.indices[slice(*graph.indptr[v : v + 2])]) for v in range(40)]
    monkeypatch.setattr("sparsecomm.io.text._CHUNK_BYTES", 17)
    assert_equal(read_matrix(write("a.graph", "\n".join(lines))), graph)


@pytest.mark.parametrize("name", ["a.txt", "a.tsv", "a.edges", "a.txt.gz", "a.tsv.gz", "a.edges.gz"])
def test_edges(write: Write, name: str) -> None:
    matrix = read_matrix(write(name, "# comment\n% another\n0 3\n\n2\t1\n0 3\n"))
    assert_equal(matrix, sp.coo_array(([2.0, 1.0], ([0, 2], [3, 1])), shape=(4, 4)))


def test_edges_with_values(write: Write) -> None:
    matrix = read_matrix(write("a.txt", "1 0 0\r\n0 1 -2.5e1\r\n  # end"))
    assert matrix.nnz == 2
    np.testing.assert_array_equal(matrix.toarray(), [[0, -25], [0, 0]])


def test_edges_one_based(write: Write) -> None:
    np.testing.assert_array_equal(read_matrix(write("a.txt", "1 2\n"), one_based=True).toarray(), [[0, 1], [0, 0]])
    assert "drop --one-based" in error(write("b.txt", "1 2\n0 1\n"), one_based=True)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("\n \n", "no edges"),
        ("# only words\n", "no edges"),
        ("1\n", "line 1 is '1'; expected 2 columns"),
        ("# c\n0 1\n0 1 2\n", "line 3 is '0 1 2'; expected 2 columns"),
        ("0 1 2\n0 1\n", "line 2 is '0 1'; expected 3 columns"),
        ("0 1 2 3\n", "line 1 is '0 1 2 3'"),
        ("0,1\n", "line 1 is '0,1'"),
        ("0 1\n0 x\n", "line 2 is '0 x'"),
        ("0 1.5\n", "line 1 is '0 1.5'"),
        ("0 99999999999999999999\n", "line 1 is"),
        ("0 1 abc\n", "line 1 is '0 1 abc'"),
        ("0 1 nan\n", "is nan"),
        ("0 1 1e999\n", "is inf"),
        ("0 -1\n", "0 -> -1"),
        ("0 100000000000\n", "100000000001 x 100000000001"),
        ("0 9223372036854775807\n", ""),
        ("-9223372036854775808 0\n", ""),
    ],
)
@pytest.mark.parametrize("one_based", [False, True])
def test_edges_refused(write: Write, text: str, says: str, one_based: bool) -> None:
    path = write("a.txt", text)
    message = error(path, one_based=one_based)
    assert says in message or one_based
