"""What `pytest -n` does when its processes die: every test is run once, or is what one died of, and the run ends."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest

from tests.scheduler import JobsTogether

TESTS = [f"tests/{file}::test_{n}" for file in ("unit/a.py", "unit/b.py", "mpi/c.py", "cluster/d.py") for n in range(5)]
DEADLY = {"tests/unit/a.py::test_1", "tests/mpi/c.py::test_0", "tests/mpi/c.py::test_4", "tests/cluster/d.py::test_4"}


class Process:
    """A process that runs a test when it knows the one after it, or that there is none."""

    def __init__(self) -> None:
        self.shutting_down = self.ready = False
        self.given: list[int] = []
        self.gateway = SimpleNamespace(id="gw")

    def send_runtest_some(self, numbers: list[int]) -> None:
        assert self.ready
        self.given += numbers

    def shutdown(self) -> None:
        self.shutting_down = True

    @property
    def moves(self) -> bool:
        return not self.ready or len(self.given) > 1 or self.shutting_down


def scheduler(num_processes: int) -> JobsTogether:
    config = SimpleNamespace(
        getvalue=lambda name: ["popen"] * num_processes, option=SimpleNamespace(loadscopereorder=True)
    )
    return JobsTogether(config, None)  # type: ignore[arg-type]


def run(num_processes: int, deadly: set[str], seed: int) -> tuple[list[str], list[str]]:
    """Return the tests that were run, and those that processes died of, with processes in any order."""
    rng, made, run, died = random.Random(seed), scheduler(num_processes), list[str](), list[str]()
    processes = [Process() for _ in range(num_processes)]
    for one in processes:
        made.add_node(one)  # type: ignore[arg-type]
    while processes:
        one: Any = rng.choice([process for process in processes if process.moves])
        if not one.ready:
            one.ready = True
            made.add_node_collection(one, TESTS)
            if made.collection_is_completed:
                made.schedule()
        elif not one.given:
            processes.remove(one)
            assert made.remove_node(one) is None
        elif TESTS[one.given[0]] in deadly:
            processes.remove(one)
            died.append(made.remove_node(one) or "nothing")
            processes.append(Process())
            made.add_node(processes[-1])  # type: ignore[arg-type]
        else:
            run.append(TESTS[one.given[0]])
            made.mark_test_complete(one, one.given.pop(0))
    return run, died


@pytest.mark.parametrize("num_processes", [1, 2, 3])
@pytest.mark.parametrize("deadly", [set(), DEADLY], ids=["all live", "some die"])
def test_every_test_is_run_once(num_processes: int, deadly: set[str]) -> None:
    for seed in range(50):
        done, died = run(num_processes, deadly, seed)
        assert sorted(died) == sorted(deadly)
        assert sorted(done) == sorted(set(TESTS) - deadly)


def test_what_starts_jobs_is_together() -> None:
    made = scheduler(2)
    assert {made._split_scope(test) for test in TESTS} == {"tests/unit/a.py", "tests/unit/b.py", "jobs"}
