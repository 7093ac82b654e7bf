"""The model of the local product: published counts of Tiled SpMM, distances between uses, time, the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array, random_array

from sparsecomm.errors import InputError
from sparsecomm.io.matrix import read_matrix
from sparsecomm.kernels import ceilings
from sparsecomm.kernels.cache import processor
from sparsecomm.kernels.ceilings import ROW_BYTES, SETS_BYTES, Ceilings
from sparsecomm.kernels.model import bytes_in_slices, predict, staged_traffic
from sparsecomm.kernels.reorder import footprint_bound, reorder_rows, total_footprint
from sparsecomm.kernels.reuse import Reuse
from sparsecomm.kernels.sliced import Sliced
from sparsecomm.kernels.staged import Staged
from sparsecomm.launch.cli import main


def matrix_of(rows: int, cols: int, density: float) -> csr_array[Any]:
    rng = np.random.default_rng(0)
    return csr_array(random_array((rows, cols), density=density, format="csr", rng=rng, dtype=np.float32))


def flat_ceilings(nonzero_s: float, row_s: float) -> Ceilings:
    table = tuple(tuple(nonzero_s for _ in SETS_BYTES) for _ in ROW_BYTES)
    return Ceilings("any", 1, table, tuple(row_s for _ in ROW_BYTES))


@pytest.mark.parametrize(
    ("neurons", "layers", "footprint", "stages"),
    [(1024, 6, 1024, 2), (16384, 10, 5323.2, 10.8), (65536, 12, 5801 + 1 / 3, 11 + 2 / 3)],
)
def test_counts_of_all_base_layers_are_the_published_ones(
    neurons: int, layers: int, footprint: float, stages: float
) -> None:
    built = [Staged.of(read_matrix(f"radixnet:{neurons}:{layer}", dtype=np.float32)) for layer in range(layers)]
    blocks = neurons // 256
    assert sum(one.map.size for one in built) == round(footprint * layers * blocks)
    assert sum(int(one.block_start[-1]) for one in built) == round(stages * layers * blocks)
    assert {one.nnz for one in built} == {32 * neurons}


@pytest.mark.parametrize("shape", [(1000, 700), (256, 90), (31, 2000), (0, 5), (5, 0)])
@pytest.mark.parametrize(("block_rows", "stage_columns"), [(256, 512), (64, 7), (32, 1)])
def test_the_format_holds_the_matrix(shape: tuple[int, int], block_rows: int, stage_columns: int) -> None:
    matrix = matrix_of(*shape, 0.02)
    staged = Staged.of(matrix, block_rows, stage_columns)
    assert np.array_equal(staged.to_csr().toarray(), matrix.toarray())
    sizes = np.diff(staged.map_start)
    assert np.all(sizes >= 1)
    assert np.all(sizes <= stage_columns)
    assert staged.map.size == sum(
        np.unique(matrix[first : first + block_rows].indices).size for first in range(0, shape[0], block_rows)
    )


def test_formats_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match="a block of 100 rows is no whole number of warps; give a multiple of 32"):
        Staged.of(matrix_of(10, 10, 0.1), 100)
    with pytest.raises(InputError, match=r"70000 columns of a stage are not in 1 \.\. 65536"):
        Staged.of(matrix_of(10, 10, 0.1), 256, 70000)


def test_traffic_of_tiled_spmm_by_hand() -> None:
    traffic = staged_traffic(padded_rows=10, footprint=100, rows=64, width=24, itemsize=4, minibatch=12)
    assert traffic["global_bytes"] == 2 * (320 * 6 + 100 * 2) + 24 * 4 * 164
    assert traffic["shared_bytes"] == 24 * 4 * 420
    assert traffic["flops"] == 2 * 320 * 24


def test_distances_equal_a_walk_through_the_nonzeros() -> None:
    matrix = matrix_of(300, 90, 0.1)
    last: dict[int, int] = {}
    bins, first = np.zeros(64, np.int64), 0
    for place, column in enumerate(matrix.indices.tolist()):
        if column in last:
            bins[int(np.log2(place - last[column]))] += 1
        first += column not in last
        last[column] = place
    reuse = Reuse.of(matrix)
    assert np.array_equal(reuse.counts, bins[: reuse.counts.size])
    assert bins[reuse.counts.size :].sum() == 0
    assert (reuse.first, reuse.nnz) == (first, matrix.nnz)


def test_columns_touched_are_those_of_random_windows() -> None:
    matrix = matrix_of(2000, 500, 0.02)
    touched = Reuse.of(matrix).columns_touched()
    rng = np.random.default_rng(1)
    for power in (3, 6, 9):
        starts = rng.integers(0, matrix.nnz - 2**power, 200)
        counted = np.mean([np.unique(matrix.indices[start : start + 2**power]).size for start in starts])
        assert abs(touched[power] / counted - 1) < 0.05


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (4, 4)])
def test_prediction_of_an_empty_matrix(shape: tuple[int, int]) -> None:
    prediction = predict(Reuse.of(csr_array(shape, dtype=np.float32)), 8, 4, flat_ceilings(1e-9, 1e-8))
    assert prediction.seconds == pytest.approx(shape[0] * 1e-8)


def test_prediction_is_nonzeros_and_rows_where_all_memory_is_equally_near() -> None:
    matrix = matrix_of(1000, 1000, 0.01)
    prediction = predict(Reuse.of(matrix), 64, 4, flat_ceilings(2e-9, 5e-8))
    assert prediction.seconds == pytest.approx(matrix.nnz * 2e-9 + 1000 * 5e-8)
    assert prediction.flops == 2 * 64 * matrix.nnz
    assert prediction.moved_bytes["L1"] >= matrix.nnz * 64 * 4
    assert prediction.bound_s == max(prediction.limits_s.values()) == prediction.limits_s[prediction.limit]


def test_prediction_of_slices_grows_with_the_bytes_of_a_nonzero() -> None:
    times = (1e-9,) * len(SETS_BYTES), (3e-9,) * len(SETS_BYTES)
    known = replace(flat_ceilings(9e-9, 0.0), slice_s=times, slice_row_s=5e-9)
    reuse = Reuse.of(matrix_of(1000, 1000, 0.01))
    expected = {2: 1e-9, 4: 2e-9, 6: 3e-9}
    for num_bytes, each in expected.items():
        prediction = predict(reuse, 1, 4, known, sliced_bytes=num_bytes)
        assert prediction.seconds == pytest.approx(reuse.nnz * each + 1000 * 5e-9)
    assert predict(reuse, 1, 4, known).seconds == pytest.approx(reuse.nnz * 9e-9)
    assert predict(reuse, 1, 4, flat_ceilings(9e-9, 0.0), sliced_bytes=2).seconds == pytest.approx(reuse.nnz * 9e-9)


def test_bytes_in_slices_are_those_that_number_the_columns() -> None:
    matrix, wide = matrix_of(200, 200, 0.1), matrix_of(20, 70_000, 0.01)
    if not Sliced.suits(matrix):
        pytest.skip("this processor has no AVX-512")
    assert (bytes_in_slices(matrix, 2), bytes_in_slices(matrix, 1), bytes_in_slices(wide, 1)) == (0, 6, 8)
    for one in (matrix, wide):
        one.data[:] = 1
    assert (bytes_in_slices(matrix, 1), bytes_in_slices(wide, 1)) == (2, 4)


def test_ceilings_are_kept_and_what_is_damaged_is_measured_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    table = ((1e-9,) * len(SETS_BYTES),) * len(ROW_BYTES)
    kept = Ceilings(processor(), 2, table, (1e-9,) * len(ROW_BYTES), table[:2], 1e-9)
    assert Ceilings.load(2) is None
    kept.save()
    assert Ceilings.load(2) == kept
    assert Ceilings.load(1) is None
    (tmp_path / "sparsecomm" / "kernels" / "ceilings-2.json").write_text('{"version": 2}')
    assert Ceilings.load(2) is None


def test_machine_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceilings, "_SECONDS", 0.0)
    monkeypatch.setattr(ceilings, "SETS_BYTES", (1 << 14, 1 << 16))
    monkeypatch.setattr(ceilings, "ROW_BYTES", (4, 64))
    found = Ceilings.measure(1)
    assert [len(row) for row in found.nonzero_s] == [2, 2]
    assert min(min(row) for row in found.nonzero_s) > 0
    assert found.of_row(64) >= 0


def test_command_predicts_and_measures(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(Ceilings, "measure", lambda threads, say: flat_ceilings(1e-9, 1e-8))
    words = ["kernel", "grid2d:40", "-k", "16", "--threads", "1", "--repeat", "3", "--reorder", "rcm"]
    assert main([*words, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["schema"] == "sparsecomm.kernel/1"
    assert report["matrix"]["nnz"] == 7840
    assert report["limit"] in report["limits_s"]
    assert report["reorder"]["method"] == "rcm"
    assert report["reorder"]["bound"] <= report["reorder"]["after"]
    assert report["percent_of_bound"] == pytest.approx(100 * report["bound_s"] / report["measured_s"]["median"])
    assert main(words) == 0
    shown = capsys.readouterr().out
    for word in ("predicted", "measured", "% of the bound", f"by {report['limit']}"):
        assert word in shown


def test_command_refuses_what_cannot_be(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernel", "grid2d:4", "-k", "0"]) == 2
    assert "-k 0 is not at least 1" in capsys.readouterr().err
    assert main(["kernel", "grid2d:4", "--threads", "9999"]) == 2
    assert "--threads 9999 is more than" in capsys.readouterr().err
    assert main(["kernel", "nowhere.mtx"]) == 2
    assert "no such file" in capsys.readouterr().err


def blocks_by_hand(matrix: csr_array[Any], order: Any, block_rows: int) -> int:
    dense = matrix.toarray()[order] != 0
    return sum(int(dense[first : first + block_rows].any(axis=0).sum()) for first in range(0, len(dense), block_rows))


@pytest.mark.parametrize("method", ["none", "rcm", "twins", "anneal"])
def test_orders_hold_every_row_once_and_never_get_below_the_bound(method: str) -> None:
    matrix = matrix_of(300, 300, 0.02)
    order = reorder_rows(matrix, method, block_rows=32)
    assert np.array_equal(np.sort(order), np.arange(300))
    assert total_footprint(matrix, order, 32) == blocks_by_hand(matrix, order, 32)
    assert footprint_bound(matrix, 32) <= total_footprint(matrix, order, 32)
    if method == "anneal":
        assert total_footprint(matrix, order, 32) < min(
            total_footprint(matrix, reorder_rows(matrix, other), 32) for other in ("none", "rcm", "twins")
        )
        assert np.array_equal(order, reorder_rows(matrix, method, block_rows=32))


def test_residue_classes_of_radixnet_are_found() -> None:
    matrix = read_matrix("radixnet:1024:3", dtype=np.float32)
    assert total_footprint(matrix, np.arange(1024)) == 4096
    assert total_footprint(matrix, reorder_rows(matrix, "rcm")) == footprint_bound(matrix) == 1024
    # Sixteen twins at a time, in the order of their residues: 16 (16 + 2^3) columns of a block.
    assert total_footprint(matrix, reorder_rows(matrix, "twins")) == 4 * 16 * (16 + 8)


def test_orders_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match="no method 'best' of reordering rows; there are none, rcm, twins, anneal"):
        reorder_rows(matrix_of(4, 4, 0.5), "best")
    with pytest.raises(InputError, match="rcm reorders square matrices, not 4 x 5; take twins"):
        reorder_rows(matrix_of(4, 5, 0.5), "rcm")


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (5, 5)])
@pytest.mark.parametrize("method", ["none", "twins", "anneal"])
def test_empty_matrices_have_orders(shape: tuple[int, int], method: str) -> None:
    matrix = csr_array(shape, dtype=np.float32)
    assert np.array_equal(np.sort(reorder_rows(matrix, method, block_rows=2)), np.arange(shape[0]))
    assert total_footprint(matrix, np.arange(shape[0]), 2) == footprint_bound(matrix, 2) == 0
