"""`sparsecomm partition`: rows to ranks, judged by what would have to move."""

from __future__ import annotations

import argparse
from pathlib import Path

from sparsecomm.launch.options import Parsers, add_json, add_matrix, add_topology, is_rank_0, print_json


def add_parser(commands: Parsers) -> argparse.ArgumentParser:
    parser = commands.add_parser("partition", help="assign rows to ranks; print balance and volume per level")
    add_matrix(parser)
    add_topology(parser, required=True)
    parser.add_argument("-m", "--method", default="block", help="block or metis (block)")
    parser.add_argument("--balance", type=float, default=1.03, help="largest load allowed over the mean load (1.03)")
    parser.add_argument("--seed", type=int, default=0, help="of methods that draw (0)")
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, help="write the matrix in one shard per rank")
    add_json(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    if not is_rank_0():
        return 0
    from sparsecomm.apps.planning import judge_partition
    from sparsecomm.apps.source import load_source, save_source
    from sparsecomm.launch import tables
    from sparsecomm.launch.progress import Progress
    from sparsecomm.matrix_store import KIND
    from sparsecomm.partition.registry import check_method
    from sparsecomm.store import check_replaceable
    from sparsecomm.topology import Topology

    check_method(args.method)
    if args.output is not None:
        check_replaceable(args.output, KIND)
    topology = Topology.parse(args.topology)
    with Progress() as say:
        source = load_source(
            args.matrix,
            topology,
            method=args.method,
            dtype=None,
            one_based=args.one_based,
            balance=args.balance,
            seed=args.seed,
            say=say,
        )
        say("counting the strategies")
        report = judge_partition(source, topology)
        if args.output is not None:
            say(f"writing {args.output}")
            save_source(args.output, source, topology)
    if args.json:
        print_json(report)
        return 0
    tables.show_partition(report)
    if args.output is not None:
        print(f"wrote {args.output}")
    return 0
