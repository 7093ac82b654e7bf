"""A virtual cluster for the length of a measurement; needs root and Linux."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

COMMAND: Final = [sys.executable, "-m", "sparsecomm"]
LIMIT_S: Final = 290


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


def _sparsecomm(*words: str) -> None:
    subprocess.run([*COMMAND, "cluster", *words], check=True, stdout=sys.stderr)
