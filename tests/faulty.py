"""A job that multiplies for ever, in which one rank goes wrong: python -m tests.faulty RANK HOW [SECONDS].

SPARSECOMM_DEADLINE is that of the products; there is time for what comes before them. HOW is raise, exit (a clean one,
too early), vanish (an exit that no one cleans up after), kill, stop, loop, diverge or none. Every rank prints `pid`,
its rank and its process; when all multiply, rank 0 prints `running` and the segments of shared memory that it maps; the
rank that goes wrong prints `fault` and the time.
"""

from __future__ import annotations

import os
import signal
import sys
import time

import numpy as np

from sparsecomm.apps.matrix import DistMatrix
from sparsecomm.apps.row_planner import plan_rows
from sparsecomm.collectives.transport.mpi import MpiTransport
from sparsecomm.collectives.transport.waits import read_deadline
from sparsecomm.io.matrix import read_matrix
from sparsecomm.layout import Layout, Layouts
from sparsecomm.topology import Topology
from tests.jobs import segments_of


def say(*words: object) -> None:
    """Print a line in one piece: the lines of ranks come through one pipe."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def go_wrong(how: str, transport: MpiTransport) -> None:
    if how == "raise":
        raise RuntimeError("the reason")
    if how == "exit":
        sys.exit(0)
    if how == "vanish":
        os._exit(0)
    if how == "diverge":
        transport.barrier()
    while how == "loop":
        time.sleep(1)
    os.kill(os.getpid(), {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}[how])


def main(victim: int, how: str, seconds: float) -> None:
    with MpiTransport(deadline_s=200) as transport:
        matrix = read_matrix("rmat:10")
        layout = Layout.block(matrix.shape[0], transport.num_ranks)
        own = layout.own_rows(transport.rank)
        rows, layouts = matrix[own.start : own.stop], Layouts(layout, layout)
        topology = Topology.parse(f"uniform:{transport.num_ranks}x1")
        product = plan_rows(rows, layouts, topology, transport, strategy="hierarchical")
        with DistMatrix(rows, product, topology, transport) as operator:
            x = operator.empty(8)
            x[...] = 1
            operator @ x
            transport.barrier()
            say("pid", transport.rank, os.getpid())
            transport.barrier()
            if transport.rank == 0:
                say("running", *segments_of(os.getpid()))
            transport.watch.deadline_s = read_deadline(os.environ)
            until = time.monotonic() + seconds
            while how != "none" or transport.bcast(time.monotonic() < until):
                operator @ x
                if how != "none" and transport.rank == victim and time.monotonic() >= until:
                    say("fault", time.time())
                    go_wrong(how, transport)


if __name__ == "__main__":
    np.seterr(all="ignore")
    main(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]) if len(sys.argv) > 3 else 0.0)
