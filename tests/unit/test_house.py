"""The house around the code: folders and links, layers, lazy imports, declared dependencies, a README that runs."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.jobs import ROOT

LINKED = ("apps", "collectives", "launch", "partition")
SOURCES = [path for folder in ("sparsecomm", *LINKED) for path in sorted((ROOT / folder).rglob("*.py"))]
README_BLOCKS = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
# Import names whose package has another name.
PACKAGES = {"cupy": "cupy-cuda12x", "cupy_backends": "cupy-cuda12x", "cupyx": "cupy-cuda12x"}


def run_python(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, timeout=200)


@pytest.mark.parametrize("name", LINKED)
def test_root_folder_is_real_and_linked(name: str) -> None:
    assert (ROOT / name).is_dir()
    assert not (ROOT / name).is_symlink()
    assert os.readlink(ROOT / "sparsecomm" / name) == f"../{name}"


@pytest.mark.parametrize("name", LINKED)
def test_bare_import_is_refused(name: str) -> None:
    run = run_python("-c", f"import {name}")
    assert run.returncode == 1
    assert f"import this package as sparsecomm.{name}" in run.stderr
    assert run_python("-c", f"import sparsecomm.{name}").returncode == 0


def test_layers_hold() -> None:
    run = lint_imports(ROOT)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize(
    ("file", "wrong"),
    [
        ("partition/wrong.py", "sparsecomm.collectives"),
        ("collectives/wrong.py", "sparsecomm.apps"),
        ("sparsecomm/errors.py", "sparsecomm.partition"),
        ("partition/wrong.py", "mpi4py"),
        ("apps/wrong.py", "cupy"),
        ("collectives/wrong.py", "torch"),
    ],
)
def test_wrong_import_is_found(file: str, wrong: str, tmp_path: Path) -> None:
    run = lint_imports(changed_copy(tmp_path, file, f"import {wrong}\n"))
    assert run.returncode == 1
    assert re.search(rf"{Path(file).stem} -> {wrong} \(l\.\d+\)", run.stdout), run.stdout


def test_module_in_no_layer_is_found(tmp_path: Path) -> None:
    run = lint_imports(changed_copy(tmp_path, "sparsecomm/unlisted.py", ""))
    assert run.returncode == 1
    assert "- sparsecomm.unlisted" in run.stdout


def changed_copy(folder: Path, file: str, added: str) -> Path:
    """Copy the code to `folder` and add a line to one of its files."""
    for name in ("sparsecomm", *LINKED):
        shutil.copytree(ROOT / name, folder / name, symlinks=True)
    shutil.copy(ROOT / "pyproject.toml", folder)
    with (folder / file).open("a") as source:
        source.write(added)
    return folder


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100)


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        ("import sparsecomm", "cupy mpi4py numba torch"),
        ("from sparsecomm.launch.cli import main; sys.argv[1:] = ['--help']; main()", "cupy mpi4py numba torch"),
        ("import runpy; sys.argv[1:] = ['--help']; runpy.run_module('sparsecomm')", "cupy mpi4py numba torch"),
        (
            "from sparsecomm.launch.cli import main; sys.argv[1:] = ['spmm', '--help']; main()",
            "cupy mpi4py numba torch",
        ),
        (
            "from sparsecomm.launch.cli import main;"
            "sys.argv[1:] = ['plan', 'grid2d:8', '-t', 'uniform:2x2', '--json']; main()",
            "cupy mpi4py torch",
        ),
    ],
    ids=["import", "help", "help of the module", "help of a command", "plan"],
)
def test_imports_are_lazy(code: str, unwanted: str) -> None:
    report = f"atexit.register(lambda: print(sorted(set({unwanted.split()}) & set(sys.modules)), file=sys.stderr))"
    run = run_python("-c", f"import atexit, sys; {report}; {code}")
    assert run.returncode == 0, run.stderr
    assert run.stderr.splitlines()[-1] == "[]"


def test_dependencies_are_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    declared = {re.split(r"[^\w-]", one)[0] for group in [project["dependencies"], *extras] for one in group}
    used = {name for path in SOURCES for name in imported_names(path)} - set(sys.stdlib_module_names)
    assert {PACKAGES.get(name, name) for name in used} - {"sparsecomm"} <= declared


def imported_names(path: Path) -> Iterator[str]:
    """Yield the top-level name of everything a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def test_readme_and_changelog_name_the_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()
    assert README_BLOCKS


@pytest.mark.parametrize("block", README_BLOCKS, ids=range(len(README_BLOCKS)))
def test_readme_runs(block: str, tmp_path: Path) -> None:
    run = run_python("-c", block, cwd=tmp_path)
    assert run.returncode == 0, run.stderr


def test_function_lengths_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    lengths = sorted(length for path in SOURCES for length in function_lengths(path))
    half, most = lengths[len(lengths) // 2], lengths[len(lengths) * 9 // 10]
    with capsys.disabled():
        print(f"\n{len(lengths)} functions: half have at most {half} lines, nine in ten at most {most}")


def function_lengths(path: Path) -> Iterator[int]:
    """Yield the lines of every function body, its docstring left out."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
            yield (body[-1].end_lineno or 0) - body[0].lineno + 1
