"""What all tests share. Nothing here imports mpi4py outside an MPI job."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

# A plan found in the user's cache would hide what planning does today.
os.environ["SPARSECOMM_CACHE"] = ""

ROOT = Path(__file__).resolve().parents[1]
BODIES = ROOT / "tests" / "mpi" / "bodies"


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    if _with_mpi(config):
        config.pluginmanager.import_plugin("tests.under_mpi")
        return
    # pytest-mpi takes the name of the folder tests/mpi for its mark, and would skip what starts the jobs.
    for plugin in config.pluginmanager.get_plugins():
        if type(plugin).__name__ == "MPIPlugin":
            config.pluginmanager.unregister(plugin)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the bodies to the jobs that `tests/mpi/test_jobs.py` starts."""
    return True if collection_path == BODIES and not _with_mpi(config) else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from tests.scheduler import JobsTogether

    return JobsTogether(config, log)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse test modules that load MPI: a process that has loaded it must start no others, and tests do."""
    if "mpi4py.MPI" in sys.modules and not _with_mpi(session.config):
        raise pytest.UsageError("a test module imports mpi4py.MPI; import it inside the function that needs it")


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plan small matrices in many parts, as large ones are."""
    for module in ("table", "verify"):
        monkeypatch.setattr(f"sparsecomm.{module}.PART_ROWS", 5)


@pytest.fixture(scope="session")
def data_dir() -> DataDir:
    """Real inputs, kept beside the checkout: `data_dir / "matrices" / "ego-twitter.npz"`."""
    return DataDir(ROOT.parent / "shared" / "data")


class DataDir:
    """A folder; `/` gives what is in it, or skips the test, naming the file that is missing."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __truediv__(self, name: str) -> DataDir | Path:
        found = self.path / name
        if not found.exists():
            pytest.skip(f"{found} is missing")
        return DataDir(found) if found.is_dir() else found


def _with_mpi(config: pytest.Config) -> bool:
    return bool(config.getoption("with_mpi", default=False))
