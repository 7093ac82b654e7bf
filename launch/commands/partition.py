"""`sparsecomm partition`: rows to ranks, judged by what would have to move."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from sparsecomm.errors import InputError
from sparsecomm.launch.options import Parsers, add_json, add_matrix, add_topology, is_rank_0, print_json

if TYPE_CHECKING:
    from sparsecomm.partition.request import Request
    from sparsecomm.topology import Topology

_METHODS = (
    "auto, block, nnz, random, rcm, metis, metis-vol, kaminpar, mtkahypar, mtkahypar-graph, mtkahypar-map, twins, "
    "streaming, or given:FILE (block)"
)


def add_parser(commands: Parsers) -> argparse.ArgumentParser:
    parser = commands.add_parser("partition", help="assign rows to ranks; print balance and volume per level")
    add_matrix(parser)
    add_topology(parser, required=True)
    parser.add_argument("-m", "--method", default="block", help=_METHODS)
    _add_limits(parser)
    _add_effort(parser)
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, help="write the matrix in one shard per rank")
    add_json(parser)
    return parser


def _add_limits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--balance", type=float, default=1.05, help="largest load over the load meant (1.05)")
    parser.add_argument("--weights", metavar="W,W,...", help="how much of the work each rank gets; 0 for none (equal)")
    parser.add_argument("--memory", metavar="BYTES", type=int, default=0, help="a rank, for A, X and Y (no limit)")
    parser.add_argument("--timeout", metavar="S", type=float, default=3600.0, help="end a library after this (3600)")


def _add_effort(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, default=0, help="of methods that draw (0)")
    parser.add_argument(
        "--side", choices=["rows", "columns", "both"], default="both", help="counted by hypergraphs (both)"
    )
    parser.add_argument("--budget", type=int, default=1, help="effort: 0 to 3; how much auto tries (1)")
    parser.add_argument("--iterations", type=int, default=1000, help="products that the partition is for (1000)")
    parser.add_argument("--goal", default="time", help="of auto: time, network, busiest, gather or cut (time)")
    parser.add_argument("--flat", action="store_true", help="straight to ranks, not nodes first")
    parser.add_argument("--no-refine", action="store_true", help="leave what a library gives as it is")
    parser.add_argument("--no-cache", action="store_true", help="let auto try again what it has tried before")


def _request(args: argparse.Namespace) -> Request:
    from sparsecomm.partition.goals import check_goal
    from sparsecomm.partition.request import Request

    request = Request(
        balance=args.balance,
        seed=args.seed,
        side=args.side,
        weights=_numbers(args.weights),
        memory_bytes=args.memory,
        effort=args.budget,
        iterations=args.iterations,
        goal=args.goal,
        flat=args.flat,
        refine=not args.no_refine,
        timeout_s=args.timeout,
        cache=not args.no_cache,
    )
    check_goal(request)
    return request


def _numbers(text: str | None) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in text.split(",")) if text else ()
    except ValueError:
        raise InputError(f"weights {text!r} are not numbers separated by commas") from None


def run(args: argparse.Namespace) -> int:
    if not is_rank_0():
        return 0
    from sparsecomm.apps.planning import judge_partition
    from sparsecomm.apps.source import is_partition, load_source, save_source
    from sparsecomm.launch import tables
    from sparsecomm.launch.progress import Progress
    from sparsecomm.matrix_store import KIND
    from sparsecomm.partition.registry import check_method
    from sparsecomm.store import check_replaceable
    from sparsecomm.topology import Topology

    check_method(args.method)
    request = _request(args)
    if args.output is not None:
        check_replaceable(args.output, KIND)
    topology = Topology.parse(args.topology)
    if args.method == "streaming" and is_partition(args.matrix):
        return _stream(args, topology, request)
    with Progress() as say:
        source = load_source(
            args.matrix,
            topology,
            method=args.method,
            dtype=None,
            one_based=args.one_based,
            request=request,
            say=say,
        )
        say("counting the strategies")
        report = judge_partition(source, topology, request)
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


def _stream(args: argparse.Namespace, topology: Topology, request: Request) -> int:
    """Partition the shards of a directory anew without ever holding the whole matrix."""
    from sparsecomm.apps.reshard import reshard
    from sparsecomm.launch import tables
    from sparsecomm.launch.progress import Progress

    with Progress() as say:
        report = reshard(Path(args.matrix), topology, request, args.output, say)
    if args.json:
        print_json(report)
        return 0
    tables.show_resharded(report)
    if args.output is not None:
        print(f"wrote {args.output}")
    return 0
