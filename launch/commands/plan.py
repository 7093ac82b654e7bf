"""`sparsecomm plan`: count every strategy for a machine, build the chosen one, predict."""

from __future__ import annotations

import argparse
from pathlib import Path

from sparsecomm.launch.options import (
    Parsers,
    add_json,
    add_matrix,
    add_planning,
    add_topology,
    check_planning,
    is_rank_0,
    print_json,
)


def add_parser(commands: Parsers) -> argparse.ArgumentParser:
    parser = commands.add_parser("plan", help="count all strategies, build and show the chosen one, predict")
    add_matrix(parser, "a file, a generator (see below), or a partition directory")
    add_topology(parser, required=True)
    add_planning(parser)
    parser.add_argument("--show", choices=["nodes", "stages"], help="also show the rows of every node, or every stage")
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, help="write the plan, one shard per rank")
    add_json(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    if not is_rank_0():
        return 0
    check_planning(args)
    from sparsecomm.apps.planning import plan_source
    from sparsecomm.apps.source import load_source
    from sparsecomm.launch import tables
    from sparsecomm.launch.freed_memory import keep_freed_memory
    from sparsecomm.launch.progress import Progress
    from sparsecomm.product_store import KIND
    from sparsecomm.store import check_replaceable
    from sparsecomm.topology import Topology

    if args.output is not None:
        check_replaceable(args.output, KIND)
    topology = Topology.parse(args.topology)
    keep_freed_memory()
    with Progress() as say:
        source = load_source(
            args.matrix, topology, method=args.partition, dtype=args.dtype, one_based=args.one_based, say=say
        )
        planned = plan_source(source, topology, strategy=args.strategy, width=args.width, dtype=args.dtype, say=say)
        if args.output is not None:
            say(f"writing {args.output}")
            planned.save(args.output)
    if args.json:
        print_json(planned.to_json())
        return 0
    tables.show_plan(planned.to_json())
    if args.show == "nodes":
        tables.show_nodes(planned.product)
    elif args.show == "stages":
        print(planned.product.describe(args.width, args.dtype))
    if args.output is not None:
        print(f"wrote {args.output}")
    return 0
