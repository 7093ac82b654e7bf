"""`sparsecomm topology`: the machine a plan would be made for, as a tree with what each level costs."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from sparsecomm.launch.options import Parsers, add_json, print_json

if TYPE_CHECKING:
    from sparsecomm.topology import Topology


def add_parser(commands: Parsers) -> argparse.ArgumentParser:
    parser = commands.add_parser("topology", help="show a topology: its levels and what they cost")
    parser.add_argument("topology", metavar="TOPOLOGY", nargs="?", help="see below; in a job, what was detected")
    add_json(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    from sparsecomm.launch import tables
    from sparsecomm.launch.world import env_rank
    from sparsecomm.topology import Topology

    topology = Topology.parse(args.topology) if args.topology else _detect()
    if env_rank(os.environ) not in (None, 0):
        return 0
    if args.json:
        print_json({"schema": "sparsecomm.topology/1", **topology.to_dict(), "ranks": topology.num_ranks})
    else:
        tables.show_topology(topology)
    return 0


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
