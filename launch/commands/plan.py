"""`sparsecomm plan`: count every strategy for a machine, build the chosen one, predict."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sparsecomm.errors import InputError
from sparsecomm.launch.options import (
    Parsers,
    add_cache,
    add_calibration,
    add_json,
    add_matrix,
    add_planning,
    add_topology,
    check_planning,
    check_writable,
    is_rank_0,
    plan_cache,
    print_json,
)

if TYPE_CHECKING:
    from sparsecomm.apps.planning import Planned


def add_parser(commands: Parsers) -> argparse.ArgumentParser:
    parser = commands.add_parser("plan", help="count all strategies, build and show the chosen one, predict")
    add_matrix(parser, "a file, a generator (see below), or a partition directory")
    add_topology(parser, required=True, several=True)
    add_planning(parser)
    add_calibration(parser)
    add_cache(parser)
    parser.add_argument("--memory", metavar="BYTES", help="of a rank, for slots and buffers, such as 2G (no limit)")
    parser.add_argument("--show", choices=["nodes", "stages"], help="also show the rows of every node, or every stage")
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, help="write the plan, one shard per rank")
    parser.add_argument("--html", metavar="FILE", type=Path, help="write the page that `report --html` makes of a plan")
    add_json(parser)
    parser.add_argument("--what-if", action="store_true", help="build nothing; compare machines, see docs/what_if.md")
    parser.add_argument(
        "--set",
        metavar="KEY=V[,V...]",
        action="append",
        default=[],
        help="with --what-if: change LEVEL.bandwidth, .latency, .ports, device.memory, width, ...; 2x multiplies",
    )
    parser.add_argument("--weak", action="store_true", help="with --what-if: a generator's matrix grows with the ranks")
    return parser


def run(args: argparse.Namespace) -> int:
    if not is_rank_0():
        return 0
    return _compare(args) if args.what_if else _plan(args)


def _compare(args: argparse.Namespace) -> int:
    """Predict every case of --what-if."""
    if args.show or args.output or args.html:
        raise InputError("--what-if builds no plan to show or to write; leave --show, --html and -o out")
    if args.calibration:
        raise InputError("--what-if predicts for other machines than the one measured; leave --calibration out")
    from sparsecomm.apps.settings import Setting
    from sparsecomm.apps.what_if import WhatIf, what_if
    from sparsecomm.launch.freed_memory import keep_freed_memory
    from sparsecomm.launch.progress import Progress
    from sparsecomm.launch.what_if_table import show_what_if

    names = () if args.strategy == "auto" else tuple(args.strategy.split(","))
    check_planning(argparse.Namespace(**{**vars(args), "strategy": "auto"}))
    asked = WhatIf(
        args.matrix,
        args.topology,
        [Setting.parse(text) for text in args.set],
        names,
        args.width,
        args.partition,
        args.dtype,
        args.one_based,
        args.weak,
        _memory(args),
    )
    keep_freed_memory()
    with Progress() as say:
        report = what_if(asked, say)
    if args.json:
        print_json(report)
    else:
        show_what_if(report)
    return 0


def _plan(args: argparse.Namespace) -> int:
    if len(args.topology) > 1 or args.set or args.weak:
        raise InputError("several topologies, --set and --weak compare machines; add --what-if")
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
    if args.html is not None:
        from sparsecomm.apps.report.page import check_plotly

        check_writable(args.html)
        check_plotly()
    topology, memory_bytes = Topology.parse(args.topology[0]), _memory(args)
    keep_freed_memory()
    with Progress() as say:
        source = load_source(
            args.matrix, topology, method=args.partition, dtype=args.dtype, one_based=args.one_based, say=say
        )
        planned = plan_source(
            source,
            topology,
            strategy=args.strategy,
            width=args.width,
            dtype=args.dtype,
            calibration=args.calibration,
            plans=plan_cache(args),
            row_mode=args.row_mode,
            memory_bytes=memory_bytes,
            say=say,
        )
        if args.output is not None:
            say(f"writing {args.output}")
            planned.save(args.output)
        if args.html is not None:
            say(f"drawing {args.html}")
            _draw(args.html, planned)
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


def _memory(args: argparse.Namespace) -> int:
    from sparsecomm.apps.sdnn.memory import parse_bytes

    return parse_bytes(args.memory) if args.memory else 0


def _draw(path: Path, planned: Planned) -> None:
    """Write the page of a plan, which need not be written itself: one for a whole machine has many thousand shards."""
    from sparsecomm.apps.report.case import case_of
    from sparsecomm.apps.report.page import write_page
    from sparsecomm.apps.report.summary import summarise
    from sparsecomm.apps.report.transfers import NONE

    case = case_of(planned)
    size = write_page(path, case, summarise(case, NONE), NONE)
    print(f"wrote {path} ({size / 1e6:.1f} MB)", file=sys.stderr)
