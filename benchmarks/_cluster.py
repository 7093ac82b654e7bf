"""Where a measurement runs: on a virtual cluster that lives as long, which needs root and Linux, or on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from sparsecomm.launch.start import ENVIRONMENT, find_mpiexec

COMMAND: Final = [sys.executable, "-m", "sparsecomm"]
LIMIT_S: Final = 290


def can_make_cluster() -> bool:
    """Say whether a cluster can be made here, and print why where it cannot."""
    if os.geteuid() != 0:
        print("a virtual cluster needs root: nothing was measured", file=sys.stderr)
    return os.geteuid() == 0


def run_here(ranks: str) -> None:
    """Run this script with the same arguments as a job of each number of ranks, given by commas, on this machine."""
    for num_ranks in ranks.split(","):
        command = [find_mpiexec(), "-n", num_ranks, sys.executable, *sys.argv]
        subprocess.run(command, check=True, timeout=LIMIT_S, env={**ENVIRONMENT, **os.environ})


@contextmanager
def cluster(name: str, nodes: int, ranks_per_node: int, bandwidth: str) -> Iterator[Callable[..., None]]:
    """Make a cluster, give what runs a command on all its ranks, and take the cluster down."""

    def run(*words: str) -> None:
        _sparsecomm("run", "--name", name, "--timeout", str(LIMIT_S), "--", *words)

    size = ("--nodes", str(nodes), "--ranks-per-node", str(ranks_per_node))
    _sparsecomm("up", "--name", name, *size, "--bandwidth", bandwidth)
    try:
        yield run
    finally:
        _sparsecomm("down", "--name", name)


@contextmanager
def one_node(num_ranks: int) -> Iterator[Callable[..., None]]:
    """Give what runs a command on all ranks of this machine."""

    def run(*words: str) -> None:
        command = [find_mpiexec(), "-n", str(num_ranks), *words]
        subprocess.run(command, check=True, stdout=sys.stderr, timeout=LIMIT_S, env={**ENVIRONMENT, **os.environ})

    yield run


def _sparsecomm(*words: str) -> None:
    subprocess.run([*COMMAND, "cluster", *words], check=True, stdout=sys.stderr)
