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

from tests.jobs import ENVIRONMENT, ROOT

LINKED = ("apps", "collectives", "launch", "partition")
SOURCES = [path for folder in ("sparsecomm", *LINKED) for path in sorted((ROOT / folder).rglob("*.py"))]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Import names whose package has another name; numba brings the llvmlite that it needs.
PACKAGES = {"cupy": "cupy-cuda12x", "cupy_backends": "cupy-cuda12x", "cupyx": "cupy-cuda12x", "llvmlite": "numba"}


def blocks_of(language: str) -> list[object]:
    """Return the text of every such block of the pages, as parameters named after page and place."""
    return [
        pytest.param(block, id=f"{page.name}-{number}")
        for page in PAGES
        for number, block in enumerate(
            re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
        )
    ]


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
        # Others compile meanwhile, and their files come and go.
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    with (folder / file).open("a") as source:
        source.write(added)
    return folder


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200)


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


@pytest.mark.parametrize("block", blocks_of("python"))
def test_python_of_the_pages_runs(block: str, tmp_path: Path) -> None:
    if "import torch" in block:
        pytest.importorskip("torch", reason="PyTorch is not installed")
    if "import jax" in block:
        pytest.skip("tests/unit/test_jax.py runs it, where JAX is loaded already")
    run = run_python("-c", block, cwd=tmp_path)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("block", blocks_of("sh"))
def test_commands_of_the_pages_run(block: str, tmp_path: Path) -> None:
    lines = block.splitlines()
    runs = r"(mpirun -n \d+ )?sparsecomm (compare|partition|plan|plot|report|sdnn|spmm|topology) "
    if not all(re.match(runs, line) for line in lines):
        pytest.skip("needs the network, a cluster, or another machine")
    environ = {**os.environ, **ENVIRONMENT, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for line in lines:
        run = subprocess.run(line, shell=True, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=200)
        assert run.returncode == 0, f"{line}\n{run.stdout}{run.stderr}"


def test_readme_shows_what_the_demo_prints() -> None:
    readme = (ROOT / "README.md").read_text()
    shown = re.search(r"<!-- demo output: begin -->\n```text\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text()
    command = re.search(r"^demo:.*\n\t\$\(BIN\)/sparsecomm (.*)$", makefile, re.MULTILINE)
    assert shown
    assert command
    defaults = dict(re.findall(r"^(\w+) \?= (.*)$", makefile, re.MULTILINE))
    words = re.sub(r"\$\((\w+)\)", lambda name: defaults[name[1]], command[1]).split()
    run = run_python("-m", "sparsecomm", *words)
    assert run.returncode == 0, run.stderr
    assert without_times(run.stdout) == without_times(shown[1])


def without_times(text: str) -> list[str]:
    """Return what a table says, without what changes from run to run."""
    text = re.sub(r"[\d.]+ (?:s|ms|us)\b|error \S+", "TIME", text)
    lines = ("".join(character for character in line if character not in "━─┏┓┡┩└┘┳╇┴") for line in text.splitlines())
    return [" ".join(line.split()) for line in lines]


def test_pages_that_are_named_exist() -> None:
    files = [*SOURCES, *PAGES, *sorted((ROOT / "benchmarks").glob("*.*"))]
    named = {name for path in files for name in re.findall(r"\b(?:docs|benchmarks)/[\w-]+\.md", path.read_text())}
    linked = {
        str((page.parent / name).relative_to(ROOT))
        for page in PAGES
        for name in re.findall(r"\]\(([\w./-]+)\)", page.read_text())
    }
    assert "docs/topology.md" in named
    assert [name for name in sorted(named | linked) if not (ROOT / name).exists()] == []


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
