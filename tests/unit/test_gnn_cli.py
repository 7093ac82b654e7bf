"""The command `gnn`: its JSON, its lines, what it refuses, and a run that is killed and goes on."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparsecomm.launch.cli import main
from tests.gnn_cases import write_graph
from tests.jobs import run_job

pytest.importorskip("torch", reason="PyTorch is not installed")


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_graph(tmp_path_factory.mktemp("graph") / "small.npz")


def run_json(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["gnn", *words, "--json"]) == 0
    shown = capsys.readouterr()
    assert "epoch " in shown.err
    report: dict[str, Any] = json.loads(shown.out)
    return report


def test_json(graph: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [graph, "--model", "sage", "-n", "4", "-t", "uniform:2x2", "--transport", "local", "--epochs", "5"]
    report = run_json(capsys, *words, "-p", "random", "-s", "cover", "--split", "1")
    assert report["schema"] == "sparsecomm.gnn/1"
    assert report["dataset"]["nodes"] == 90
    assert report["dataset"]["split"] == 1
    assert (report["ranks"], report["strategy"], report["score"]) == (4, "cover", "accuracy")
    assert [epoch["epoch"] for epoch in report["epochs"]] == [1, 2, 3, 4, 5]
    assert report["epochs"][0].keys() >= {"loss", "val_loss", "train", "val", "test", "seconds", "rows", "bytes"}
    assert len(report["peak_memory_bytes"]) == 4
    assert report["settings"]["hidden"] == 64


def test_table(graph: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gnn", graph, "--epochs", "3", "--layers", "3"]) == 0
    shown = capsys.readouterr()
    assert "small: 90 nodes" in shown.out
    assert "gcn of 3 layers on 1 ranks" in shown.out
    assert "MB saved" in shown.out
    assert "accuracy at epoch" in shown.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "cnn"], "unknown model 'cnn'; give one of gcn, sage, gin, gat"),
        (["--epochs", "0"], "epochs 0 is too small"),
        (["--wire-dtype", "int3"], "unknown wire format 'int3'; give one of bfloat16, float16, int8"),
        (["--optimiser", "sgd"], "unknown optimiser 'sgd'; give one of adam, lion, sign-lion"),
        (["--optimiser", "sign-lion", "--checkpoint", "state.npz"], "which a checkpoint does not hold"),
        (["--dropout", "1"], "dropout 1.0 is not a share"),
        (["--model", "gat", "-s", "cover"], "strategy cover does not bring"),
        (["-s", "fast"], "unknown strategy 'fast'"),
        (["-p", "fast"], "unknown partition method 'fast'"),
        (["--resume"], "--resume needs the file"),
        (["--resume", "--checkpoint", "nothing.npz"], "nothing.npz: no such checkpoint"),
        (["--split", "2"], "split 2 is not one of the 2"),
        (["-n", "2", "-t", "uniform:2x2"], "has 4 ranks, but 2 are to run"),
        (["-n", "0"], "0 ranks cannot be started"),
        (["--checkpoint", "no/such/folder.npz", "--epochs", "1"], "cannot be written"),
    ],
)
def test_bad_input(
    words: list[str], message: str, graph: str, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["gnn", graph, "--transport", "local", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not list(tmp_path.iterdir())


def test_graph_directory(graph: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A run whose ranks read their parts alone is the run that rank 0 reads for."""
    words = ["-t", "uniform:2x2", "-p", "random", "--model", "sage", "--split", "1", "--epochs", "4"]
    folder = str(tmp_path / "cut")
    assert main(["gnn", graph, *words, "-o", folder, "--json"]) == 0
    cut = json.loads(capsys.readouterr().out)
    assert sum(cut["nodes_per_rank"]) == 90
    whole, parts = (run_json(capsys, data, *words, "--transport", "local") for data in (graph, folder))
    for report in (whole, parts):
        for changing in ("memory_before_bytes", "peak_memory_bytes"):
            del report[changing]
        for epoch in report["epochs"]:
            del epoch["seconds"]
    assert parts == whole
    for data, more, message in (
        (folder, ["-n", "3", "-t", "uniform:1x3"], "is cut for 4 ranks, not 3"),
        (folder, ["-t", "uniform:2x2", "--split", "2"], "split 2 is not one of the 2"),
        (graph, ["-n", "2", "-o", str(tmp_path)], "was not written by sparsecomm"),
    ):
        assert main(["gnn", data, "--transport", "local", *more]) == 2
        assert message in capsys.readouterr().err
    for name in ("nodes.degrees.npy", "nodes.train.npy", "features.indptr.npy", "matrix.data.npy"):
        damaged = Path(folder, "rank_000002", name)
        kept = damaged.read_bytes()
        damaged.write_bytes(kept[:-1])
        assert main(["gnn", folder, "--transport", "local", *words]) == 2
        assert "cannot be read" in capsys.readouterr().err
        damaged.write_bytes(kept)


def test_missing_data_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gnn", "nowhere/cora"]) == 2
    assert "no such file, and no nowhere/ind.cora.graph" in capsys.readouterr().err


def test_killed_run_ends_with_the_same_bits(graph: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = tmp_path / "state.npz"
    killed = run_job(2, ["python", "-m", "tests.gnn_job", graph, str(state), "1", "37"])
    assert killed.rc != 0, killed
    words = [graph, "--epochs", "45", "--checkpoint", str(state), "--resume", "-n", "2", "-t", "nodes:2", "--json"]
    rest = run_job(2, ["sparsecomm", "gnn", *words])
    assert rest.rc == 0, rest
    went_on = json.loads(rest.stdout)
    assert went_on["epochs"][0]["epoch"] == 31
    whole = run_json(capsys, graph, "--epochs", "45", "-n", "2", "-t", "nodes:2", "--transport", "local")
    for name in ("loss", "val_loss", "test"):
        ends = [[epoch[name] for epoch in report["epochs"][-15:]] for report in (went_on, whole)]
        np.testing.assert_array_equal(*ends)


def test_lines_on_a_terminal() -> None:
    from sparsecomm.apps.torch.training import Epoch
    from sparsecomm.launch.epochs import EpochLines
    from sparsecomm.topology import Topology

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream, moved = Terminal(), np.array([1_500_000, 2_000])
    with EpochLines(Topology.parse("uniform:2x2"), 200, stream=stream) as lines:
        for number in (1, 2):
            lines(Epoch(number, 1.5, 1.6, {"val": 0.5}, 0.01, moved, moved), moved)
    assert stream.getvalue().count("\r") == 2
    assert stream.getvalue().endswith(
        "epoch 2 of 200: loss 1.5000, val 50.0 %, 10.0 ms, node 1.500 MB at 150 MB/s, network 0.002 MB at 0 MB/s, "
        "at most 2 s left\n"
    )


def test_help_loads_neither_torch_nor_mpi() -> None:
    code = "from sparsecomm.launch.cli import main; sys.argv[1:] = ['gnn', '--help']; main()"
    report = "atexit.register(lambda: print(sorted({'torch', 'mpi4py', 'numba'} & set(sys.modules)), file=sys.stderr))"
    run = subprocess.run(
        [sys.executable, "-c", f"import atexit, sys; {report}; {code}"], capture_output=True, text=True
    )
    assert run.returncode == 0
    assert run.stderr.splitlines()[-1] == "[]"
