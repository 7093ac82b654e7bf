"""`sparsecomm topology`: the machine a plan would be made for, as a tree with what each level costs."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from sparsecomm.errors import InputError
from sparsecomm.launch.options import Parsers, add_json, print_json

if TYPE_CHECKING:
    from sparsecomm.launch.machine.machine import Machine
    from sparsecomm.topology import Topology


def add_parser(commands: Parsers) -> argparse.ArgumentParser:
    parser = commands.add_parser("topology", help="show a topology: its levels and what they cost")
    parser.add_argument("topology", metavar="TOPOLOGY", nargs="?", help="see below; without it, what is detected here")
    add_json(parser)
    parser.add_argument("--toml", action="store_true", help="print the file that describes it")
    return parser


def run(args: argparse.Namespace) -> int:
    from sparsecomm.launch.machine.machine import find_machine
    from sparsecomm.launch.world import env_rank
    from sparsecomm.topology import Topology

    if args.toml and args.json:
        raise InputError("--toml and --json are two forms of one output; give one")
    speaks = env_rank(os.environ) in (None, 0)
    machine = find_machine() if speaks and not args.topology else None  # before MPI, after which nothing may fork
    topology = Topology.parse(args.topology) if args.topology else _detect()
    if speaks:
        _print(args, topology, machine)
    return 0


def _print(args: argparse.Namespace, topology: Topology, machine: Machine | None) -> None:
    if args.toml:
        sys.stdout.write(topology.to_toml())
    elif args.json:
        found = {"machine": machine.to_json()} if machine else {}
        print_json({"schema": "sparsecomm.topology/1", **topology.to_dict(), "ranks": topology.num_ranks, **found})
    else:
        from sparsecomm.launch import tables

        tables.show_topology(topology)
        if machine:
            machine.show()


def _detect() -> Topology:
    from sparsecomm.collectives.transport.open import detect_topology, open_transport
    from sparsecomm.launch.world import env_size
    from sparsecomm.topology import Topology

    if env_size(os.environ) is None:
        return Topology.from_nodes([0], "this process")
    transport = open_transport()
    topology = detect_topology(transport)
    transport.close()
    return topology
