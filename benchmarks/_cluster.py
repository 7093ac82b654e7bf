"""Where a measurement runs: on a virtual cluster that lives as long, which needs root and Linux, or on this machine."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from _machine import machine, machine_text

from sparsecomm.launch.start import ENVIRONMENT, find_mpiexec
from sparsecomm.launch.world import env_size

COMMAND: Final = [sys.executable, "-m", "sparsecomm"]
LIMIT_S: Final = 290


def can_make_cluster() -> bool:
    """Say whether a cluster can be made here, and print why where it cannot."""
    if os.geteuid() != 0:
        print("a virtual cluster needs root: nothing was measured", file=sys.stderr)
    return os.geteuid() == 0


def in_jobs(body: Callable[[argparse.Namespace], None], args: argparse.Namespace, what: str, columns: str) -> int:
    """Run `body` on every rank of a job; where this is none, run this script as a job of each of `args.ranks` here.

    Args:
        args: of the script; `ranks` are numbers of ranks, by commas.
        what: the figures are, printed below the machine.
        columns: the head of the table.
    """
    if env_size(os.environ) is not None:
        body(args)
        return 0
    print(f"{machine_text(machine())}\n\n{what}\n{columns}", flush=True)
    for num_ranks in args.ranks.split(","):
        command = [find_mpiexec(), "-n", num_ranks, sys.executable, *sys.argv]
        subprocess.run(command, check=True, timeout=LIMIT_S, env={**ENVIRONMENT, **os.environ})
    return 0


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
