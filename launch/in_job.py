"""What commands that run on ranks share: starting the ranks, or working as one rank of a job."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from sparsecomm.errors import InputError

if TYPE_CHECKING:
    from sparsecomm.collectives.transport.base import Transport
    from sparsecomm.topology import Topology

Report = TypeVar("Report")
Work = Callable[[argparse.Namespace, "Transport"], Report]
Show = Callable[[Report, argparse.Namespace], int]


def run_on_ranks(
    args: argparse.Namespace, check: Callable[[argparse.Namespace], int], work: Work[Report], show: Show[Report]
) -> int:
    """Do the work as one rank of the job this runs in, or start as many ranks as `check` returns."""
    from sparsecomm.launch.start import start_ranks
    from sparsecomm.launch.world import env_size

    if env_size(os.environ) is not None:
        return run_in_job(args, work, show)
    num_ranks = check(args)
    if num_ranks == 1 or args.transport == "local":
        from sparsecomm.collectives.transport.local import run_local

        return show(run_local(num_ranks, lambda transport: work(args, transport))[0], args)
    return start_ranks(num_ranks, [sys.executable, "-m", "sparsecomm", *args.argv])


def run_in_job(args: argparse.Namespace, work: Work[Report], show: Show[Report]) -> int:
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


def ranks_to_start(args: argparse.Namespace, wanted: int = 1) -> int:
    """Return how many ranks to start: what -n says, or else those of the topology asked for, or else `wanted`.

    Raises:
        InputError: none, or others than the topology has.
    """
    from sparsecomm.topology import Topology

    topology = Topology.parse(args.topology) if args.topology else None
    wanted = topology.num_ranks if topology else wanted
    num_ranks = wanted if args.ranks is None else int(args.ranks)
    if num_ranks < 1:
        raise InputError(f"{num_ranks} ranks cannot be started; give at least 1 with -n")
    if topology is not None:
        check_ranks(topology, num_ranks)
    _check_planned_in_job(args, num_ranks)
    return num_ranks


def find_topology(
    args: argparse.Namespace,
    transport: Transport,
    check: Callable[[argparse.Namespace], None],
    planned: Callable[[], Topology] | None = None,
) -> Topology:
    """Check the options on all ranks, and return the topology asked for, or that of a plan, or the one detected.

    Raises:
        InputError: on every rank, when anything does not fit.

    Note: Collective over comm.
    """
    from sparsecomm.apps.job import on_all
    from sparsecomm.collectives.transport.open import detect_topology
    from sparsecomm.topology import Topology

    on_all(transport, lambda: check(args))
    on_all(transport, lambda: check_started(args, transport.num_ranks))
    if args.topology:
        topology = on_all(transport, lambda: Topology.parse(args.topology))
    else:
        topology = on_all(transport, planned) if planned else detect_topology(transport)
    on_all(transport, lambda: check_ranks(topology, transport.num_ranks))
    return topology


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
    _check_planned_in_job(args, num_ranks)


def _check_planned_in_job(args: argparse.Namespace, num_ranks: int) -> None:
    """Refuse a strategy that several ranks cannot plan together, before they read anything.

    Raises:
        InputError: with what to do instead.
    """
    from sparsecomm.collectives.strategy import get_strategy

    name = getattr(args, "strategy", "auto")
    if num_ranks > 1 and name != "auto" and get_strategy(name).offline:
        raise InputError(
            f"strategy {name} is planned offline only, where one process holds the whole matrix; give auto or another, "
            f"or make the plan by `sparsecomm plan -s {name} -o DIR` and run it by `sparsecomm spmm --plan DIR`"
        )
