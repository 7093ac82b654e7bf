"""What a command does as one rank of a job."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sparsecomm.errors import InputError

if TYPE_CHECKING:
    from sparsecomm.collectives.transport.base import Transport
    from sparsecomm.topology import Topology

Work = Callable[[argparse.Namespace, "Transport"], dict[str, Any]]
Show = Callable[[dict[str, Any], argparse.Namespace], int]


def run_in_job(args: argparse.Namespace, work: Work, show: Show) -> int:
    """Do the work as one rank of a job, print the report on rank 0, and leave together with the others."""
    from sparsecomm.collectives.transport.leave import leave_on_signals
    from sparsecomm.collectives.transport.open import open_transport
    from sparsecomm.launch.start import report_code
    from sparsecomm.launch.world import env_rank

    if args.partition != "block" and env_rank(os.environ) == 0:
        from sparsecomm.partition.child import Child

        Child.start()  # before MPI, after which nothing may fork
    leave_on_signals()
    transport = open_transport(deadline_s=args.deadline)
    code = 1
    try:
        report = work(args, transport)
        code = show(report, args) if transport.rank == 0 else 0
        transport.barrier()
        transport.close()
    except InputError:
        code = 2
        raise
    finally:
        if transport.rank == 0:
            report_code(code)
    return code


def check_ranks(topology: Topology, num_ranks: int) -> None:
    """Refuse a topology of other ranks than are to run.

    Raises:
        InputError: with both numbers.
    """
    if topology.num_ranks != num_ranks:
        raise InputError(
            f"topology {topology.name} has {topology.num_ranks} ranks, but {num_ranks} are to run; "
            f"use -n {topology.num_ranks} or a topology of {num_ranks}"
        )


def check_started(args: argparse.Namespace, num_ranks: int) -> None:
    """Refuse to be told to start other ranks than those of the job.

    Raises:
        InputError: with both numbers.
    """
    if args.ranks not in (None, num_ranks):
        raise InputError(
            f"-n {args.ranks} asks for other ranks than the {num_ranks} of the job this runs in; leave -n out"
        )
