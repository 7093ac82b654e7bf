"""Sparse networks: layers, images, batches and groups against dense formulas; whole runs against plain loops."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import mmwrite
from scipy.sparse import coo_array

from sparsecomm.apps.sdnn.batches import Batches, width_for
from sparsecomm.apps.sdnn.groups import Groups, grouping
from sparsecomm.apps.sdnn.inputs import Drawn
from sparsecomm.apps.sdnn.layers import run_layer
from sparsecomm.apps.sdnn.memory import Budget, parse_bytes
from sparsecomm.apps.sdnn.network import RadixNetwork
from sparsecomm.apps.sdnn.rebalance import fair_shares
from sparsecomm.apps.sdnn.share import Share
from sparsecomm.apps.sdnn.weights import Weights
from sparsecomm.errors import InputError
from sparsecomm.layout import Layout
from sparsecomm.topology import Topology
from tests.cli import Ran, sparsecomm

SMALL = ["radixnet:256", "--bias", "-0.3", "--layers", "10", "--inputs", "300", "--transport", "local"]


def run(*argv: object, network: Sequence[object] = SMALL) -> dict[str, Any]:
    ran = sparsecomm("sdnn", *network, *argv, "--json")
    assert ran.rc == 0, ran
    return ran.json


def weights_of(neurons: int, layer: int) -> np.ndarray:
    """W_k from its formula, rows = FROM."""
    inner = neurons // 16
    one = np.eye(inner) + np.roll(np.eye(inner), -(2**layer), axis=1)
    return np.kron(np.ones((16, 16)), one) / 16


@pytest.mark.parametrize(("neurons", "base"), [(64, 2), (256, 4)])
def test_layers_are_permuted_copies_of_the_formula(neurons: int, base: int) -> None:
    network = RadixNetwork(neurons, 3 * base, -0.3, seed=5)
    for layer in range(3 * base):
        found, wanted = network.matrix(layer).toarray().T, weights_of(neurons, layer % base)
        if layer < base:
            assert np.array_equal(found, wanted)
        else:  # one permutation of the FROM neurons for all layers of a copy
            perm = np.random.default_rng([5, layer // base]).permutation(neurons)
            assert np.array_equal(found, wanted[perm])
        assert (found != 0).sum(axis=0).tolist() == (found != 0).sum(axis=1).tolist() == [32] * neurons


def test_base_layers_are_the_official_ones(data_dir: Any) -> None:
    from sparsecomm.apps.sdnn.challenge import find_files
    from sparsecomm.apps.sdnn.network import FileNetwork

    files = find_files((data_dir / "sparse_dnn").path)
    official = FileNetwork(files.folder, files.weights, files.neurons, 30, -0.3)
    classes = np.load(data_dir / "sparse_dnn" / "official_n1024_l120_classes.npz")["cls"]
    for layer in (0, 5, 6, 29):
        found = official.matrix(layer).toarray().T
        assert np.array_equal(found[:64], weights_of(1024, layer % 6)[classes[layer // 6][:64]])
        if layer < 6:
            assert (official.matrix(layer) != RadixNetwork(1024, 6, -0.3).matrix(layer)).nnz == 0


def test_images_depend_on_seed_and_number_alone() -> None:
    drawn = Drawn(100, 256, seed=3)
    everything = drawn.pixels(np.arange(100))
    dense = np.zeros((100, 256), dtype=np.float32)
    dense[everything.image, everything.neuron] = everything.value
    some = np.array([0, 7, 8, 9, 50, 99])
    found = drawn.pixels(some)
    picked = np.zeros((some.size, 256), dtype=np.float32)
    picked[found.image, found.neuron] = found.value
    assert np.array_equal(picked, dense[some])
    assert 0.05 < dense.mean() < 0.2
    assert not np.array_equal(Drawn(100, 256, seed=4).pixels(np.arange(100)).neuron, everything.neuron)


@pytest.mark.parametrize(
    ("count", "most", "width"), [(0, 64, 1), (1, 64, 16), (64, 64, 64), (65, 64, 48), (128, 64, 64), (7, 5, 5)]
)
def test_width(count: int, most: int, width: int) -> None:
    assert width_for(count, most) == width


def as_matrix(batches: Batches) -> np.ndarray:
    empty = [np.zeros((batches.num_rows, 0), dtype=np.float32)]
    return np.concatenate(empty + batches.blocks, axis=1)[:, : batches.ids.size]


def test_batches_keep_what_is_selected() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        count, rows, width = int(rng.integers(1, 200)), int(rng.integers(1, 9)), int(rng.integers(1, 70))
        dense = (rng.random((rows, count)) * (rng.random((rows, count)) < 0.3)).astype(np.float32)
        batches = Batches(np.arange(count) * 3, rows, width)
        row, image = np.nonzero(dense)
        batches.fill(image, row, dense[row, image])
        assert np.array_equal(as_matrix(batches), dense)
        keep = np.flatnonzero(rng.random(count) < 0.5)
        if keep.size:
            found = batches.entries(keep)
            again = np.zeros((rows, keep.size), dtype=np.float32)
            again[found.neuron, found.image] = found.value
            assert np.array_equal(again, dense[:, keep])
        packed = batches.select(keep, int(rng.integers(1, 70)))
        assert np.array_equal(as_matrix(packed), dense[:, keep])
        assert np.array_equal(packed.ids, keep * 3)
        packed.extend(np.array([1, 2]))
        assert np.array_equal(as_matrix(packed), np.pad(dense[:, keep], [(0, 0), (0, 2)]))


def test_layer_is_the_formula_of_the_challenge() -> None:
    rng = np.random.default_rng(1)
    network = RadixNetwork(64, 2, -0.3)
    dense = (rng.random((64, 50)) * 40 * (rng.random((64, 50)) < 0.1)).astype(np.float32)
    batches = Batches(np.arange(50), 64, 16)
    row, image = np.nonzero(dense)
    batches.fill(image, row, dense[row, image])
    alive = run_layer(Share.of([network.matrix(1)]), batches, None, -0.3, batches.empty())
    z = dense.T @ weights_of(64, 1).astype(np.float32)  # rows are images, as the challenge writes it
    wanted = np.minimum(np.maximum(np.where(z != 0, z - np.float32(0.3), 0), 0), 32)
    assert np.allclose(as_matrix(batches).T, wanted, atol=1e-5)
    assert np.array_equal(alive, (wanted > 0).any(axis=1))


def test_groups_have_every_neuron_once() -> None:
    topology = Topology.parse("nodes:3,1,2")
    for mode in ("data", "model", "hybrid"):
        groups = Groups.of(grouping(mode, topology), 64, lambda size: Layout.block(64, size).owners()[::-1].copy())
        for group in range(groups.sizes.size):
            ranks = np.flatnonzero(groups.rank_to_group == group)
            owned = [groups.own_neurons(int(rank)) for rank in ranks]
            assert np.array_equal(np.sort(np.concatenate(owned)), np.arange(64))
            for rank, own in zip(ranks, owned, strict=True):
                assert (groups.owner(np.full(own.size, group), own) == rank).all()
        images = [groups.images_of(group, 1000) for group in range(groups.sizes.size)]
        assert np.array_equal(np.sort(np.concatenate(images)), np.arange(1000))
        index, ranks = groups.members(np.arange(groups.sizes.size))
        assert np.array_equal(groups.rank_to_group[ranks], index)


def test_fair_shares() -> None:
    rng = np.random.default_rng(2)
    for _ in range(100):
        counts, sizes = rng.integers(0, 50, 5), rng.integers(1, 4, 5)
        shares = fair_shares(counts, sizes)
        assert shares.sum() == counts.sum()
        assert (np.abs(shares - counts.sum() * sizes / sizes.sum()) <= 1).all()


CASES = {
    "data": ["--mode", "data", "-n", 3],
    "data, rebalanced": ["--mode", "data", "-n", 3, "--rebalance", 2],
    "model": ["--mode", "model", "-n", 2, "-s", "direct"],
    "model, twins": ["--mode", "model", "-n", 3, "-p", "twins"],
    "hybrid": ["--mode", "hybrid", "-t", "uniform:2x2", "-s", "hierarchical", "-k", 24],
    "hybrid, uneven": ["--mode", "hybrid", "-t", "nodes:2,1", "--rebalance", 3],
    "more ranks than blocks": ["--mode", "data", "-n", 8, "--inputs", 20],
}


@pytest.mark.parametrize("case", CASES)
def test_all_modes_find_the_categories_of_a_plain_loop(case: str) -> None:
    report = run(*CASES[case], "--check")
    assert report["verified"] is True
    assert report["checked"] == {"scipy": True}
    assert report["layer_alive"][-1] == report["categories"]
    assert "inputs" in case or report["inputs"]["count"] in (300, 20)
    moved = sum(report["rows"].values())
    assert (moved > 0) == (report["strategy"] is not None) == ("data" not in case and "blocks" not in case)
    assert (report["rebalanced_images"] > 0) == ("rebalanced" in case or "uneven" in case)


def test_some_images_live_and_some_die() -> None:
    report = run()
    assert 0 < report["categories"] < 100
    assert report["layer_alive"] == sorted(report["layer_alive"], reverse=True)
    assert report["edges_per_s"] == pytest.approx(300 * 10 * 256 * 32 / report["seconds"]["median"])
    assert report["schema"] == "sparsecomm.sdnn/1"
    assert report["verified"] is None


def test_patterns_that_repeat_are_planned_once(tmp_path: Path) -> None:
    folder = write_challenge(tmp_path, layers=2)
    argv = [folder, "--layers", 12, "--bias", -0.3, "--transport", "local"]
    report = run("--mode", "model", "-n", 2, network=argv)
    assert report["network"]["distinct_layers"] == 2
    exchanges = report["exchanges"]
    assert exchanges["used"] == 12
    assert exchanges["made"] < 12


def write_challenge(folder: Path, layers: int, suffix: str = "tsv") -> Path:
    """Write a network of 256 neurons, 40 images and their categories as the challenge does."""
    network, drawn = RadixNetwork(256, layers, -0.3, seed=1), Drawn(40, 256, seed=1)
    for layer in range(layers):
        found = coo_array(network.matrix(layer).T)
        if suffix == "mtx":
            mmwrite(folder / f"n256-l{layer + 1}.mtx", found)
        else:
            write_lines(folder / f"n256-l{layer + 1}.tsv", found.row, found.col, found.data)
    pixels = drawn.pixels(np.arange(40))
    write_lines(folder / "sparse-images-256.tsv", pixels.image, pixels.neuron, pixels.value)
    y = np.zeros((40, 256))
    y[pixels.image, pixels.neuron] = 1
    for layer in range(layers):
        z = y @ network.matrix(layer).toarray().T.astype(float)
        y = np.where(z != 0, np.clip(z - 0.3, 0, 32), 0)
    alive = np.flatnonzero(y.sum(axis=1) > 0)
    (folder / f"neuron256-l{layers}-categories.tsv").write_text("".join(f"{image + 1}\n" for image in alive))
    return folder


def write_lines(path: Path, rows: Any, cols: Any, values: Any) -> None:
    path.write_text("".join(f"{r + 1}\t{c + 1}\t{v:.6e}\n" for r, c, v in zip(rows, cols, values, strict=True)))


@pytest.mark.parametrize("suffix", ["tsv", "mtx"])
def test_official_files(suffix: str, tmp_path: Path) -> None:
    folder = write_challenge(tmp_path, 5, suffix)
    found = tmp_path / "found.tsv"
    report = run("--bias", -0.3, "--check", "--categories", found, network=[str(folder)])
    assert report["checked"] == {"truth": True, "scipy": True}
    assert found.read_text() == (folder / "neuron256-l5-categories.tsv").read_text()
    assert run("--bias", -0.3, "--inputs", 20, network=[str(folder)])["verified"] is True


def test_wrong_categories_are_a_failure(tmp_path: Path) -> None:
    folder = write_challenge(tmp_path, 5)
    truth = folder / "neuron256-l5-categories.tsv"
    truth.write_text(truth.read_text() + "1\n2\n3\n")
    ran = sparsecomm("sdnn", folder, "--bias", -0.3)
    assert ran.rc == 1
    assert "DIFFERENT from the truth" in ran.stdout


BAD = {
    "no folder": (["nowhere"], "no such folder"),
    "empty folder": (["."], "holds no weights"),
    "mode": (["radixnet:1024", "--mode", "both"], "unknown mode 'both'"),
    "size": (["radixnet:1000"], "expected a power of two"),
    "form": (["radixnet:x"], r"radixnet:NEURONS\[:SEED\]"),
    "bias": (["radixnet:256"], "no bias is known for 256"),
    "positive bias": (["radixnet:256", "--bias", "0.1"], "not between"),
    "layers": (["radixnet:1024", "--layers", "0"], "layers 0"),
    "width": (["radixnet:1024", "-k", "0"], "width 0"),
    "rebalance": (["radixnet:1024", "--layers", "2", "--rebalance", "2"], "not before the last of 2 layers"),
    "strategy": (["radixnet:1024", "-s", "reduce"], "cannot run a network"),
    "method": (["radixnet:1024", "-p", "nothing"], "unknown partition method"),
    "memory": (["radixnet:1024", "--memory", "much"], "not a number of bytes"),
    "too little memory": (["radixnet:1024", "--layers", "2", "--inputs", "9", "--memory", "10M"], "raise --memory"),
    "ranks": (["radixnet:1024", "-n", "3", "-t", "nodes:1,1"], "has 2 ranks, but 3"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    argv, message = BAD[case]
    assert_refused(sparsecomm("sdnn", *argv, "--transport", "local"), message)


def assert_refused(ran: Ran, message: str) -> None:
    assert ran.rc == 2, ran
    assert ran.stdout == ""
    assert re.search(message, ran.stderr), ran.stderr
    assert "Traceback" not in ran.stderr


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    folder = write_challenge(tmp_path, 3)
    (folder / "n256-l2.tsv").rename(folder / "n64-l1.tsv")
    assert_refused(sparsecomm("sdnn", folder, "--bias", -0.3), r"\[64, 256\] neurons; choose one with --neurons")
    assert_refused(sparsecomm("sdnn", folder, "--bias", -0.3, "--neurons", 256), "layer 2 of 3 is missing")
    (folder / "n64-l1.tsv").rename(folder / "n256-l2.tsv")
    assert_refused(sparsecomm("sdnn", folder, "--bias", -0.3, "--inputs", 41), r"holds \d+ images, not 41")
    (folder / "n256-l2.tsv").write_text("1 300 0.5\n")
    assert_refused(sparsecomm("sdnn", folder, "--bias", -0.3), "n256-l2.tsv: is 300 x 300; expected 256")
    (folder / "neuron256-l3-categories.tsv").write_text("0\n")
    assert_refused(sparsecomm("sdnn", folder, "--bias", -0.3), "counted from 1")


def test_bytes() -> None:
    assert [parse_bytes(text) for text in ("10", "1.5k", "800M", "2G")] == [10, 1536, 800 << 20, 2 << 30]
    for text in ("", "x", "-1", "0", "1P"):
        with pytest.raises(InputError, match="not a number of bytes"):
            parse_bytes(text)


def test_weights_come_from_the_file_as_they_were() -> None:
    network = RadixNetwork(64, 6, -0.3)
    shares = [Share.of([network.matrix(layer), network.matrix(5 - layer)[:, :17]]) for layer in range(6)]
    weights = Weights(Budget(1))  # nothing fits
    for share in shares:
        weights.add(share)
    assert weights.in_file
    for layer in [0, 1, 2, 3, 4, 5, 0, 1, 5, 2]:  # at the end not as announced
        found, wanted = weights.get(layer, (layer + 1) % 6), shares[layer]
        for one, other in zip(found.matrices, wanted.matrices, strict=True):
            assert one.shape == other.shape
            assert (one != other).nnz == 0
            assert one.indices.dtype == np.int32
    weights.close()
    assert weights.streamed.num_bytes >= 10 * shares[0].num_bytes
    assert weights.streamed.requests >= 10


def test_memory_limit_is_kept() -> None:
    """63 MB of weights and 25 MB of activations in a process that needs 75 MB to begin with."""
    argv = ["sdnn", "radixnet:4096", "--layers", "60", "--inputs", "1500", "--memory", "140M", "--json"]
    done = subprocess.run([sys.executable, "-m", "sparsecomm", *argv], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    limited, free = json.loads(done.stdout), sparsecomm("sdnn", *argv[1:6], "--json").json
    memory = limited["memory"]
    assert memory["streamed"]
    assert memory["read_bytes"] >= memory["weights"]
    assert memory["peak"] <= memory["limit"]
    for key in ("categories", "layer_alive"):
        assert limited[key] == free[key]
    assert not free["memory"]["streamed"]


@pytest.mark.parametrize("mode", ["data", "model"])
def test_rounds_and_weights_from_disk(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparsecomm.apps.sdnn.memory.resident_bytes", lambda: 0)
    report = run(
        "--mode", mode, "-n", 2, "--layers", 40, "--inputs", 3000, "--memory", "26M", "--rebalance", 3, "--check"
    )
    memory = report["memory"]
    assert report["verified"] is True
    assert memory["streamed"]
    assert memory["images_at_once"] < 3000 // (2 if mode == "data" else 1)
    assert memory["read_requests"] > 40
