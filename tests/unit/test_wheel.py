"""From the source distribution to a wheel to an environment that has never seen the checkout."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import sysconfig
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from tests.jobs import ROOT

SHIPPED = ("sparsecomm", "apps", "collectives", "launch", "partition")
PROJECT = ("pyproject.toml", "README.md", "LICENSE")


def run(*command: str | Path, cwd: Path) -> str:
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=250)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel built from the sdist that is built from a copy of the checkout."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in SHIPPED:
        # Others compile meanwhile, and their files come and go.
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in PROJECT:
        shutil.copy(ROOT / name, source)
    run(sys.executable, "-m", "build", *_isolation(), "--outdir", out, source, cwd=out)
    return next(out.glob("*.whl"))


def _isolation() -> list[str]:
    """Ask no server for what builds where it is installed: a test must not wait for a network."""
    try:
        major = int(version("setuptools").partition(".")[0])
    except PackageNotFoundError:
        return []
    return ["--no-isolation"] if major >= 77 else []


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel; what it depends on comes from this one."""
    folder = tmp_path_factory.mktemp("venv")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    python = folder / "bin" / "python"
    run(
        *(sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python),
        *("install", "--no-deps", "--no-index", wheel),
        cwd=folder,
    )
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    Path(site, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def test_wheel_holds_every_file_once(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        entries = archive.infolist()
    names = {entry.filename for entry in entries if ".dist-info/" not in entry.filename}
    assert names == shipped_files()
    assert all(stat.S_ISREG(entry.external_attr >> 16) for entry in entries)
    assert any(entry.filename.endswith(".dist-info/licenses/LICENSE") for entry in entries)


def shipped_files() -> set[str]:
    """Every file of the package, through its links, by the name it is imported by."""
    return {
        os.path.relpath(os.path.join(folder, name), ROOT)
        for folder, _, names in os.walk(ROOT / "sparsecomm", followlinks=True)
        for name in names
        if not folder.endswith("__pycache__")
    }


def test_command_runs_from_anywhere(installed: Path, tmp_path: Path) -> None:
    assert "spmm" in run(installed / "bin" / "sparsecomm", "--help", cwd=tmp_path)


@pytest.mark.parametrize("name", SHIPPED)
def test_package_is_the_installed_one(name: str, installed: Path, tmp_path: Path) -> None:
    module = name if name == "sparsecomm" else f"sparsecomm.{name}"
    code = f"import {module}; print({module}.__file__)"
    file = Path(run(installed / "bin" / "python", "-c", code, cwd=tmp_path).strip())
    assert file.is_relative_to(installed)
