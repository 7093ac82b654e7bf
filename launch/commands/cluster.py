"""`sparsecomm cluster`: a virtual cluster on one Linux machine, with links as slow as one asks."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from sparsecomm.errors import InputError
from sparsecomm.launch.options import Parsers, add_json, print_json

if TYPE_CHECKING:
    from sparsecomm.launch.cluster.names import Node

_DEFAULT_NAME = "cluster"


def add_parser(commands: Parsers) -> argparse.ArgumentParser:
    parser = commands.add_parser("cluster", help="a virtual cluster on this machine: up, run, status, down")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    _add_up(actions)
    _add_run(actions)
    status = _add(actions, "status", "tell what is there, and what is wrong with it")
    add_json(status)
    status.set_defaults(act=_status)
    _add(actions, "down", "end its processes and remove all of it").set_defaults(act=_down)
    packages = actions.add_parser("packages", help="print a script that installs what a cluster needs (Debian)")
    packages.set_defaults(act=_packages)
    return parser


def run(args: argparse.Namespace) -> int:
    code: int = args.act(args)
    return code


def _add(actions: Parsers, name: str, text: str) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=text, description=text)
    parser.add_argument("--name", default=_DEFAULT_NAME, help=f"tells clusters apart ({_DEFAULT_NAME})")
    return parser


def _add_up(actions: Parsers) -> None:
    parser = _add(actions, "up", "make a cluster: namespaces as nodes, a bridge between them, rates on its links")
    parser.add_argument("--nodes", default="4", metavar="N", help="how many, or the ranks of each: 3,3,1 (4)")
    parser.add_argument("--ranks-per-node", type=int, metavar="G", help="ranks of each node (2)")
    parser.add_argument("--bandwidth", default="1gbit", help="of each link in each direction (1gbit)")
    parser.add_argument("--slurm", action="store_true", help="with munge, slurmctld and a slurmd on each node")
    parser.set_defaults(act=_up)


def _add_run(actions: Parsers) -> None:
    parser = _add(actions, "run", "run a command on all ranks of the cluster and return its exit code")
    parser.usage = "%(prog)s [options] -- COMMAND [ARGUMENT ...]"
    parser.add_argument("--mpi", choices=["mpich", "openmpi"], help="refuse another one (whichever is installed)")
    parser.add_argument(
        "--env", metavar="DIR", type=Path, help="environment with MPI and COMMAND (that of this Python)"
    )
    parser.add_argument(
        "--via", choices=["mpiexec", "srun", "sbatch"], default="mpiexec", help="what starts the ranks (mpiexec)"
    )
    parser.add_argument("--on", metavar="NODE", help="run it once, on this node (head, node0, ...), without MPI")
    parser.add_argument("--timeout", type=float, default=0.0, metavar="S", help="end it after S seconds, exit code 86")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="and its arguments, after --")
    parser.set_defaults(act=_run)


def _up(args: argparse.Namespace) -> int:
    from sparsecomm.launch.cluster import lifecycle, status
    from sparsecomm.launch.cluster.names import Cluster, parse_bandwidth, parse_nodes

    num_ranks_of = parse_nodes(args.nodes, args.ranks_per_node)
    cluster = Cluster(args.name, num_ranks_of, parse_bandwidth(args.bandwidth), args.slurm)
    if not lifecycle.up(cluster):
        print(f"{cluster}: is up already")
        return 0
    status.show(status.report(args.name))
    return 0


def _run(args: argparse.Namespace) -> int:
    from sparsecomm.launch.cluster import batch, jobs, network
    from sparsecomm.launch.cluster.mpi import find_mpi
    from sparsecomm.launch.cluster.state import load_up
    from sparsecomm.launch.cluster.status import check_sound

    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        raise InputError("no command to run; give it after --: sparsecomm cluster run -- hostname")
    state = load_up(args.name)
    mpi = find_mpi(args.env, args.mpi)
    check_sound(state, network.problems(state))
    if args.on is not None:
        return jobs.run_on(state, _check_node(state.cluster.all_nodes, args.on), mpi, command, args.timeout)
    start = {"mpiexec": jobs.run_ranks, "srun": batch.run_srun, "sbatch": batch.run_sbatch}[args.via]
    return start(state, mpi, command, args.timeout)


def _check_node(nodes: tuple[Node, ...], name: str) -> str:
    names = [node.name for node in nodes]
    if name not in names:
        raise InputError(f"no node {name!r} in this cluster; its nodes are {', '.join(names)}")
    return name


def _status(args: argparse.Namespace) -> int:
    from sparsecomm.launch.cluster import status

    facts = status.report(args.name)
    if args.json:
        print_json(facts)
    else:
        status.show(facts)
    return 0


def _down(args: argparse.Namespace) -> int:
    from sparsecomm.launch.cluster import lifecycle

    print(f"cluster {args.name}: " + ("removed" if lifecycle.down(args.name) else "there is none"))
    return 0


def _packages(args: argparse.Namespace) -> int:
    from sparsecomm.launch.cluster.tools import install_script

    print(install_script(), end="")
    return 0
