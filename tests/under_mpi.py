"""A pytest plugin for every rank of an MPI job; `tests/conftest.py` registers it where `--with-mpi` is given.

A test that fails on one rank leaves the others waiting in a collective for ever, so any failure ends the job.
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator

from mpi4py import MPI

import pytest

from sparsecomm.collectives.transport.last_words import wait_for_last_words

WORLD = MPI.COMM_WORLD


@pytest.fixture
def comm() -> Iterator[MPI.Intracomm]:
    """A communicator over all ranks, with a tag space of its own."""
    copy = WORLD.Dup()
    yield copy
    copy.Free()


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    if WORLD.rank > 0:
        config.pluginmanager.unregister(name="terminalreporter")


def pytest_report_header() -> str:
    return f"MPI: {WORLD.size} ranks of {MPI.get_vendor()[0]}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs more ranks than there are, so that nothing counts as skipped."""
    small = [item for item in items if _min_size(item) > WORLD.size]
    config.hook.pytest_deselected(items=small)
    items[:] = [item for item in items if item not in small]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _abort_if_failed(report)
    return report


def pytest_collectreport(report: pytest.CollectReport) -> None:
    _abort_if_failed(report)


def pytest_runtest_logfinish() -> None:
    WORLD.Barrier()


def _min_size(item: pytest.Item) -> int:
    return max((mark.kwargs.get("min_size", 1) for mark in item.iter_markers("mpi")), default=1)


def _abort_if_failed(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.failed:
        print(f"\nrank {WORLD.rank}: {report.nodeid} failed\n{report.longreprtext}", file=sys.stderr, flush=True)
        wait_for_last_words()
        WORLD.Abort(1)
