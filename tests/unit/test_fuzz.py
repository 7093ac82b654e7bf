"""A sample of the fuzz campaign, and everything that a campaign has found."""

from __future__ import annotations

import gzip
import io
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from sparsecomm.errors import InputError
from sparsecomm.io import read_matrix
from sparsecomm.matrix_store import load_matrix, load_partition_header, load_partition_layouts
from sparsecomm.product_store import load_product
from sparsecomm.topology import Topology
from tests.fuzz.campaign import run_reader
from tests.fuzz.directories import save_example_partition, save_example_product
from tests.fuzz.fire import fire
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_sample(name: str, tmp_path: Path) -> None:
    """Numbers that the campaign does not reach, so that the two add up."""
    num_inputs = 40 if "directory" in name else 150
    score = fire(TARGETS[name], range(10**6, 10**6 + num_inputs), tmp_path)
    assert score.failures == []
    assert score.refused + score.read == num_inputs
    assert score.read > 0


@pytest.mark.parametrize("number", [2822, 13529])
def test_header_with_other_groups_of_ranks(number: int, tmp_path: Path) -> None:
    """Found by the campaign: the plan was read, and broke the first rule that its proof looked at."""
    assert fire(TARGETS["plan directory"], range(number, number + 1), tmp_path).failures == []


def test_shape_without_bytes(tmp_path: Path) -> None:
    """A shape of 10**12 rows of nothing: the error that would have listed them took all memory."""
    path = tmp_path / "a.npz"
    np.savez(path, format=b"csr", data=np.ones(1), indices=np.zeros(1, np.int32), indptr=np.arange(2))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("shape.npy", npy("<i8", (10**12, 0)))
    with pytest.raises(InputError, match=r"has a shape of int64 in an array of \(1000000000000, 0\)"):
        read_matrix(str(path))


def test_a_process_that_dies_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fuzz.campaign.sys.executable", "/bin/false")
    outcome = run_reader("mtx", 2)
    assert (len(outcome.crashes), outcome.score.read) == (2, 0)


def npy(descr: object, shape: object, data: bytes = b"") -> bytes:
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}, }}".encode()
    return b"\x93NUMPY\x01\0" + (len(header) + 1).to_bytes(2, "little") + header + b"\n" + data


def array(values: list[float], dtype: str) -> bytes:
    out = io.BytesIO()
    np.save(out, np.array(values, dtype=dtype))
    return out.getvalue()


BROKEN_ARRAYS = {
    "empty texts": npy("<U0", (-1,)),  # divided by zero in numpy: the process died of SIGFPE
    "old name of a type": npy("|a3", (1,), b"abc"),  # DeprecationWarning
    "negative shape": npy("<i8", (-1,), bytes(8)),
    "unfinished header": npy("<i8", (1,), bytes(8)).replace(b"}", b"("),  # tokenize.TokenError
    "header of Python 2": npy("<i8", (1,), bytes(8)).replace(b"(1,)", b"1L,)"),  # a warning
    "flags": array([True, False], "?"),
    "complex indices": array([0, 1j], "c16"),  # ComplexWarning
    "not numbers": array([np.nan, 1], "f8"),  # RuntimeWarning: invalid value in cast
    "no dimensions": npy("<i4", (), bytes(4)),  # ValueError of numpy.concatenate
    "two dimensions": npy("<i4", (1, 1), bytes(4)),
}


@pytest.mark.parametrize("broken", BROKEN_ARRAYS.values(), ids=BROKEN_ARRAYS)
def test_broken_arrays_of_directories(broken: bytes, tmp_path: Path) -> None:
    for kind, save, name in (
        ("partition", save_example_partition, "rank_000001/matrix.indptr.npy"),
        ("partition", save_example_partition, "rows.offsets.npy"),
        ("plan", save_example_product, "rank_000001/product.multiplier.npy"),
        ("plan", save_example_product, "rank_000000/gather.slots.npy"),
    ):
        folder = tmp_path / kind
        save(folder)
        (folder / name).write_bytes(broken)
        with pytest.raises(InputError, match="anew"):
            load_product(folder) if kind == "plan" else read_partition(folder)


def test_gzip_bomb(tmp_path: Path) -> None:
    path = tmp_path / "bomb.txt.gz"
    path.write_bytes(gzip.compress(b"0 1\n" * 2**23))
    tracemalloc.start()
    with pytest.raises(InputError, match="no matrix"):
        read_matrix(str(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**26


def read_partition(folder: Path) -> None:
    load_matrix(folder, load_partition_layouts(folder, load_partition_header(folder)))


def test_large_tree_is_read_without_a_list_of_its_ranks(tmp_path: Path) -> None:
    text = Topology.parse("uniform:2x1").to_toml()
    (tmp_path / "t.toml").write_text(text.replace("tree = [1, 1]", f"tree = [{2**20}, 1]"))
    assert Topology.parse(str(tmp_path / "t.toml")).num_ranks == 2**20 + 1
    (tmp_path / "t.toml").write_text(text.replace("tree = [1, 1]", f"tree = [{'9' * 300}, 1]"))
    with pytest.raises(InputError, match="more than 16777216 ranks"):
        Topology.parse(str(tmp_path / "t.toml"))
