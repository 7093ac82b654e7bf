"""Bad input of every kind: one short line that names it and the cure, exit code 2, and nothing written."""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from sparsecomm.launch.cli import make_parser
from tests.cli import Ran, sparsecomm

MTX = "%%MatrixMarket matrix coordinate real general\n"
MACHINE = "nodes:2,1"
LINES = "4 4 4\n1 1 1.0\n2 3 2.0\n3 1 3.0\n4 4 4.0\n"


def test_the_good_matrix_is_good(tmp_path: Path) -> None:
    (tmp_path / "a.mtx").write_text(MTX + LINES)
    for command, options in COMMANDS.values():
        ran = sparsecomm(
            command, tmp_path / "a.mtx", *(f"{command}-out" if word == "OUT" else word for word in options)
        )
        assert ran.rc == 0, ran


def npz(**arrays: Any) -> Callable[[Path], object]:
    return lambda path: np.savez(path, **arrays)


def pickled(path: Path) -> None:
    matrix = sp.csr_array(np.eye(4))
    arrays = {"data": np.array([1.0, {"an": "object"}, 3.0, 4.0], dtype=object)}
    np.savez(path, indices=matrix.indices, indptr=matrix.indptr, shape=(4, 4), format=b"csr", **arrays)


def text(content: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(content)


# What is in the file, and what the error must say besides its name.
FILES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "missing": ("a.mtx", lambda path: None, "does not exist; check the name|no such file, and no generator"),
    "empty": ("a.mtx", text(""), r"is empty \(0 bytes\); expected a matrix: was it written or copied completely"),
    "empty npz": ("a.npz", text(""), "is empty"),
    "truncated": ("a.mtx", text(MTX + LINES[:20]), "promises 4 entries|Truncated"),
    "cut in a line": ("a.mtx", text(MTX + LINES[:-12]), "correct the line"),
    "cut gzip": ("a.mtx.gz", lambda path: path.write_bytes(b"\x1f\x8b\x08\x00"), "complete gzip file .* copy it again"),
    "10^11 entries": ("a.mtx", text(MTX + "9 9 100000000000\n1 1 1\n"), "promises 100000000000 entries.*copy it again"),
    "10^11 rows": ("a.mtx", text(MTX + "100000000000 9 1\n1 1 1\n"), "correct the header"),
    "index 0": ("a.mtx", text(MTX + "4 4 1\n0 1 1\n"), "Row index out of bounds.*1 <= ROW <= 4.*write 0-based"),
    "index beyond": ("a.mtx", text(MTX + "4 4 1\n1 5 1\n"), "Column index out of bounds.*1 <= COL <= 4"),
    "edge below": ("a.txt", text("0 -1\n"), "vertices cannot be negative"),
    "metis beyond": ("a.graph", text("2 1\n2\n3\n"), "expected 1 to 2: METIS counts from 1"),
    "NaN": (
        "a.mtx",
        text(MTX + "4 4 1\n2 1 nan\n"),
        r"row 1, column 0\), counted from 0, is nan.*remove or replace",
    ),
    "infinite": ("a.mtx", text(MTX + "4 4 1\n2 1 inf\n"), "is inf; .* remove or replace"),
    "no number": ("a.mtx", text(MTX + "4 4 1\n1 x 5\n"), "'1 x 5'.*correct the line"),
    "no number, edges": ("a.tsv", text("0\t1\n1\tone\n"), r"line 2 is '1\\tone'.*whole numbers"),
    "no banner": ("a.mtx", text(LINES), "has no Matrix Market header"),
    "other arrays": ("a.npz", npz(weights=np.eye(3)), r"is not a sparse matrix: it holds \['weights'\].*save_npz"),
    "pickles": ("a.npz", pickled, "Python objects in data, which are never unpickled; .*save_npz"),
    "pickled format": ("a.npz", npz(format=np.array([{"a": 1}], dtype=object)), "never unpickled"),
    "no zip": ("a.npz", text("hello"), r"is not a sound \.npz file.*copy it again"),
    "unknown suffix": ("a.xyz", text(LINES), r"neither a known file type nor a generator; expected a file \.mtx"),
    "folder": ("a.mtx", lambda path: path.mkdir(), "is a directory; give a matrix file in it"),
}
COMMANDS = {
    "plan": ("plan", ["-t", MACHINE, "-o", "OUT"]),
    "partition": ("partition", ["-t", MACHINE, "-o", "OUT"]),
    "spmm": ("spmm", ["-t", MACHINE, "--transport", "local", "--repeat", "1", "-k", "2", "--json"]),
    "spmm alone": ("spmm", ["--repeat", "1", "-k", "2", "--json"]),
}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refused(*argv: object, says: str, names: str = "") -> Ran:
    """Run a command and hold its refusal against all that one has to be."""
    before = sorted(Path.cwd().rglob("*"))
    ran = sparsecomm(*argv)
    assert ran.rc == 2, ran
    assert ran.stdout == "", ran
    assert ran.stderr.startswith("sparsecomm: error: "), ran
    assert ran.stderr.count("\n") == 1, ran
    assert len(ran.stderr) < 500, ran
    assert "Traceback" not in ran.stderr, ran
    assert re.search(says, ran.stderr), ran
    assert names in ran.stderr, ran
    assert sorted(Path.cwd().rglob("*")) == before
    return ran


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("wrong", FILES)
def test_file(wrong: str, command: str, tmp_path: Path) -> None:
    name, write, says = FILES[wrong]
    write(tmp_path / name)
    verb, options = COMMANDS[command]
    refused(verb, tmp_path / name, *options, says=says, names=str(tmp_path / name))


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("rmat:99", "SCALE is 99; expected 1 to 30"),
        ("grid2d:-4", "N is '-4'; expected a whole number"),
        ("er:10", r"expected er:N:DEGREE\[:SEED\]"),
        ("radixnet:1000:0", "power of two"),
        ("tree:3", "no such file, and no generator|neither a known file type nor a generator"),
    ],
)
@pytest.mark.parametrize("command", COMMANDS)
def test_generator(spec: str, says: str, command: str) -> None:
    verb, options = COMMANDS[command]
    refused(verb, spec, *options, says=says, names=spec)


@pytest.mark.parametrize(
    ("machine", "says"),
    [
        ("uniform:0x4", "uniform:0x4"),
        ("uniform:4x0", "uniform:4x0"),
        ("nodes:", "nodes:"),
        ("summit:0", "summit:0"),
        ("torus:2x2", "uniform:NxG"),
        ("no.toml", "no.toml"),
        ("uniform:9999999999x9999999999", "uniform:"),
    ],
)
@pytest.mark.parametrize("command", ["plan", "partition", "spmm", "topology"])
def test_topology(machine: str, says: str, command: str) -> None:
    argv = ["topology", machine] if command == "topology" else [command, "grid2d:4", "-t", machine]
    refused(*argv, says=says, names=machine)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("-k 0", "width 0 is not at least 1; give the number of columns of X with -k"),
        ("-k -3", "width -3"),
        ("-s fastest", "unknown strategy 'fastest'; give one of auto, direct, hierarchical, reduce"),
        ("-p magic", "unknown partition method 'magic'; give one of auto, block, nnz"),
        ("-p .", r"\. is not a partition directory: it has no header; make one"),
    ],
)
@pytest.mark.parametrize("command", ["plan", "spmm"])
def test_option(options: str, says: str, command: str) -> None:
    refused(command, "grid2d:4", "-t", MACHINE, *options.split(), says=says)


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ("partition grid2d:4 -t nodes:2,1 -m magic", "unknown partition method 'magic'; give one of auto, block, nnz"),
        ("partition grid2d:4 -t nodes:2,1 --balance 0.5", "balance 0.5 is not 1 to 1000"),
        ("partition grid2d:4 -t nodes:2,1 --balance nan", "balance nan is not 1 to 1000"),
        ("partition grid2d:4 -t nodes:2,1 -m metis --balance 1e300", "balance 1e.300 is not 1 to 1000"),
        ("partition grid2d:4 -t nodes:2,1 -m metis --seed -1", "seed -1 is not 0 to"),
        ("partition grid2d:4 -t nodes:2,1 -m metis --seed 9999999999", "seed 9999999999 is not 0 to"),
        ("spmm grid2d:4 --repeat 0", "repeat 0 is not at least 1"),
        ("spmm grid2d:4 -n 0", "0 ranks cannot be started; give at least 1 with -n"),
        ("spmm grid2d:4 -n 2 -t nodes:2,1", "has 3 ranks, but 2 are to run; use -n 3 or a topology of 2"),
        ("spmm grid2d:4 -n 65 --transport local", "1 to 64 ranks, not 65; use MPI"),
        ("spmm grid2d:4 -n 2 -s tree", "strategy tree is planned offline only, .*; give auto or another, or make"),
        ("topology nodes:2,1 --json --toml", "give one"),
    ],
)
def test_argument(argv: str, says: str) -> None:
    refused(*argv.split(), says=says)


@pytest.mark.parametrize(
    "argv",
    ["", "plan", "plan grid2d:4", "plan grid2d:4 -t nodes:1 --dtype int8", "plan grid2d:4 -t nodes:1 -k many",
     "plan grid2d:4 -t nodes:1 --show all", "partition grid2d:4 -t nodes:1 --seed x", "multiply grid2d:4",
     "-w topology"],
)  # fmt: skip
def test_usage(argv: str) -> None:
    misused(*argv.split(), command=argv.split()[0] if argv.startswith("p") else "")


def test_every_command_says_where_its_help_is() -> None:
    parser = make_parser()
    (commands,) = [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]
    for command in commands.choices:
        misused(command, "--no-such-option", command=command)
    for action in ("up", "run", "status", "down", "packages"):
        misused("cluster", action, "--no-such-option", command=f"cluster {action}")


def test_in_a_job_one_rank_says_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMI_SIZE", "2")
    for rank, lines in (("0", 1), ("1", 0)):
        monkeypatch.setenv("PMI_RANK", rank)
        ran = sparsecomm("plan")
        assert (ran.rc, ran.stderr.count("\n")) == (2, lines)


def misused(*argv: str, command: str) -> None:
    """Hold that a wrong command line gets one line, which names the command whose help says more."""
    ran = sparsecomm(*argv)
    assert (ran.rc, ran.stdout) == (2, "")
    assert ran.stderr.startswith("sparsecomm: error: ")
    assert ran.stderr.endswith(f"; see `{f'sparsecomm {command}'.strip()} --help`\n")
    assert ran.stderr.count("\n") == 1


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sound `plan` and a sound `cut`, made once."""
    folder = tmp_path_factory.mktemp("made")
    assert sparsecomm("plan", "rmat:7:4", "-t", MACHINE, "-o", folder / "plan").rc == 0
    assert sparsecomm("partition", "rmat:7:4", "-t", MACHINE, "-m", "metis", "-o", folder / "cut").rc == 0
    return folder


@pytest.fixture
def plan(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "plan", tmp_path / "plan"))


@pytest.fixture
def cut(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "cut", tmp_path / "cut"))


def change_header(path: Path, **changes: object) -> None:
    header = json.loads((path / "header.json").read_text())
    (path / "header.json").write_text(json.dumps({**header, **changes}))


LOCAL = ["--transport", "local", "--repeat", "1", "-k", "2", "--json"]


def test_plan_for_another_matrix(plan: Path) -> None:
    says = "was made for matrix rmat:7:4, which has another structure than rmat:7:5; plan rmat:7:5 again"
    refused("spmm", "rmat:7:5", "--plan", plan, *LOCAL, says=says, names=str(plan))


def test_plan_for_other_ranks(plan: Path) -> None:
    says = "is for 3 ranks, but here are 4; use 3 ranks or plan again with a topology of 4"
    refused("spmm", "rmat:7:4", "--plan", plan, "-n", 4, *LOCAL, says=says, names=str(plan))


def test_plan_for_another_machine(plan: Path) -> None:
    says = r"was made for topology nodes:2,1, not nodes:1,2; plan again for nodes:1,2, or give no topology"
    refused("spmm", "rmat:7:4", "--plan", plan, "-t", "nodes:1,2", *LOCAL, says=says, names=str(plan))


@pytest.mark.parametrize("version", [0, 2])
def test_plan_of_another_version(version: int, plan: Path) -> None:
    change_header(plan, version=version)
    says = f"has version {version}, but this library reads 1; make it anew"
    refused("spmm", "rmat:7:4", "--plan", plan, *LOCAL, says=says, names=str(plan))


@pytest.mark.parametrize("given", ["-s reduce", "-p nnz"])
def test_plan_with_choices_that_it_made(given: str, plan: Path) -> None:
    says = f"runs as it was made: leave {given} out"
    refused("spmm", "rmat:7:4", "--plan", plan, *given.split(), *LOCAL, says=says)


def test_plan_that_is_not_there(tmp_path: Path) -> None:
    refused(
        "spmm", "rmat:7:4", "--plan", "nowhere", *LOCAL, says="nowhere is not a plan directory .*: it has no header"
    )


def test_plan_with_a_damaged_shard(plan: Path) -> None:
    file = plan / "rank_000001" / "gather.slots.npy"
    file.write_bytes(file.read_bytes()[:-4])
    refused(
        "spmm", "rmat:7:4", "--plan", plan, *LOCAL, says="cannot be read.* make the directory anew", names=str(file)
    )


def test_plan_with_a_pickle(plan: Path) -> None:
    file = plan / "rank_000002" / "product.multiplier.npy"
    np.save(file, np.array([{}], dtype=object), allow_pickle=True)
    refused("spmm", "rmat:7:4", "--plan", plan, *LOCAL, says=r"it holds '\|O', not numbers", names=str(file))


def test_plan_given_as_a_matrix(plan: Path) -> None:
    refused("plan", plan, "-t", MACHINE, says="has format sparsecomm.product, but sparsecomm.partition is needed")


def test_plan_made_with_another_partition(plan: Path, cut: Path) -> None:
    says = f"was made with another partition than {cut}; plan {cut} again"
    refused("spmm", cut, "--plan", plan, *LOCAL, says=re.escape(says), names=str(plan))


@pytest.mark.parametrize(
    ("offsets", "says"),
    [
        ([0, 128], "the layout of rows has 128 on 1 ranks, but the header says 128 on 3"),
        ([0, 40, 80, 100, 128], "the layout of rows has 128 on 4 ranks, but the header says 128 on 3"),
        ([0, 40, 80, 120], "128 rows in its permutation but 120 in its offsets"),
        ([0, 80, 40, 128], "never fall"),
        ([0, 40, -1, 128], "never fall"),
    ],
)
@pytest.mark.parametrize("command", ["plan", "spmm", "layout"])
def test_layout_that_does_not_fit(offsets: list[int], says: str, command: str, cut: Path) -> None:
    np.save(cut / "rows.offsets.npy", np.array(offsets))
    argv = {
        "plan": ["plan", cut, "-t", MACHINE, "-o", "OUT"],
        "spmm": ["spmm", cut, "-t", MACHINE, *LOCAL],
        "layout": ["plan", "rmat:7:4", "-t", MACHINE, "-p", cut, "-o", "OUT"],
    }[command]
    refused(*argv, says=says, names=str(cut))


@pytest.mark.parametrize("row", [-1, 128])
def test_layout_with_a_row_out_of_range(row: int, cut: Path) -> None:
    permutation = np.load(cut / "rows.old_to_new.npy")
    permutation[5] = row
    np.save(cut / "rows.old_to_new.npy", permutation)
    refused("plan", cut, "-t", MACHINE, says="must name every row exactly once", names=str(cut))


def test_partition_for_other_ranks(cut: Path) -> None:
    says = "is for 3 ranks, not 4; use 3 ranks or partition again for 4"
    refused("plan", cut, "-t", "uniform:2x2", "-o", "OUT", says=says, names=str(cut))
    refused("spmm", cut, "-t", "uniform:2x2", *LOCAL, says=says, names=str(cut))
    refused("plan", "rmat:7:4", "-p", cut, "-t", "uniform:2x2", says=says, names=str(cut))


def test_partition_of_another_matrix(cut: Path) -> None:
    says = "was made for matrix rmat:7:4, which has another structure than rmat:7:5; partition rmat:7:5"
    refused("plan", "rmat:7:5", "-t", MACHINE, "-p", cut, "-o", "OUT", says=says, names=str(cut))


@pytest.mark.parametrize("command", ["plan", "partition"])
def test_output_that_would_destroy_something(command: str, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("keep")
    (tmp_path / "file").write_text("in the way")
    says = "exists and was not written by sparsecomm; choose another name"
    for path in ("notes", "file"):
        refused(command, "grid2d:4", "-t", MACHINE, "-o", path, says=says, names=path)
    refused(command, "grid2d:4", "-t", MACHINE, "-o", "file/plan", says="choose another")
