"""`sparsecomm sdnn`: inference of a sparse deep neural network, the Graph Challenge."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsecomm.errors import InputError
from sparsecomm.launch.in_job import find_topology, ranks_to_start, run_on_ranks
from sparsecomm.launch.options import Parsers, add_json, add_topology, print_json, reader_may_leave

if TYPE_CHECKING:
    from sparsecomm.apps.sdnn.problem import SdnnOptions
    from sparsecomm.collectives.transport.base import Transport


def add_parser(commands: Parsers) -> argparse.ArgumentParser:
    parser = commands.add_parser("sdnn", help="run a sparse deep neural network over many inputs")
    parser.add_argument("network", metavar="NETWORK", help="radixnet:NEURONS[:SEED], or a folder of official files")
    parser.add_argument("--layers", type=int, help="of the network; files are repeated (all files, or 120)")
    parser.add_argument("--inputs", type=int, help="images (those of the folder, or 60000 that are drawn)")
    parser.add_argument(
        "--mode", default="data", help="data: split images; model: split neurons; hybrid: images by node (data)"
    )
    add_topology(parser, required=False)
    parser.add_argument("-n", "--ranks", type=int, help="start this many ranks here (those of the topology, or 1)")
    parser.add_argument(
        "--transport", choices=["mpi", "local"], default="mpi", help="processes, or threads of one (mpi)"
    )
    parser.add_argument(
        "-p", "--partition", metavar="METHOD", default="block", help="of the neurons, for all layers together (block)"
    )
    parser.add_argument("-s", "--strategy", default="auto", help="direct, hierarchical, striped, allgather, or auto")
    parser.add_argument("-k", "--width", type=int, default=64, help="most images in a batch (64)")
    parser.add_argument("--rebalance", type=int, default=0, metavar="LAYER", help="deal images anew after it (never)")
    parser.add_argument("--memory", metavar="BYTES", help="limit of a process, such as 800M; weights may go to disk")
    parser.add_argument("--scratch", type=Path, metavar="DIR", help="where weights go that do not fit")
    parser.add_argument("--bias", type=float, help="of every neuron (that of the challenge for the size)")
    parser.add_argument("--neurons", type=int, help="which network of a folder with several")
    parser.add_argument("--truth", type=Path, metavar="FILE", help="the right categories (those of the folder)")
    parser.add_argument("--categories", type=Path, metavar="FILE", help="write the categories found")
    parser.add_argument("--seed", type=int, default=0, help="of drawn images (0)")
    parser.add_argument("--check", action="store_true", help="compare with a plain loop of scipy on rank 0")
    parser.add_argument("--repeat", type=int, default=1, help="timed runs (1)")
    parser.add_argument(
        "--deadline", type=float, metavar="SECONDS", help="end the job when a rank waits longer; 0 for never (300)"
    )
    add_json(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    return run_on_ranks(args, _check, _work, _print)


def _check(args: argparse.Namespace) -> int:
    """Refuse what can be refused before any rank is started, and return how many to start."""
    _check_options(args)
    return ranks_to_start(args)


def _check_options(args: argparse.Namespace) -> None:
    from sparsecomm.apps.sdnn.groups import MODES
    from sparsecomm.apps.sdnn.planner import check_strategy
    from sparsecomm.apps.sdnn.problem import is_generated
    from sparsecomm.collectives.transport.waits import check_deadline
    from sparsecomm.partition.registry import check_method

    if args.mode not in MODES:
        raise InputError(f"unknown mode {args.mode!r}; give one of {', '.join(MODES)}")
    for name, least in (("width", 1), ("repeat", 1), ("rebalance", 0), ("seed", 0)):
        if getattr(args, name) < least:
            raise InputError(f"{name} {getattr(args, name)} is not at least {least}; give such a number with --{name}")
    if not is_generated(args.network) and not Path(args.network).is_dir():
        raise InputError(f"{args.network}: no such folder, and no generated network; give one, or radixnet:NEURONS")
    check_strategy(args.strategy)
    check_method(args.partition)
    check_deadline(args.deadline or 0)
    _options(args)


def _work(args: argparse.Namespace, transport: Transport) -> dict[str, Any]:
    from sparsecomm.apps.sdnn.job import run_sdnn
    from sparsecomm.launch.progress import Progress

    topology = find_topology(args, transport, _check_options)
    with Progress(enabled=transport.rank == 0) as say:
        return run_sdnn(_options(args), topology, transport, say)


def _options(args: argparse.Namespace) -> SdnnOptions:
    from sparsecomm.apps.sdnn.memory import parse_bytes
    from sparsecomm.apps.sdnn.problem import SdnnOptions

    return SdnnOptions(
        network=args.network,
        layers=args.layers,
        inputs=args.inputs,
        mode=args.mode,
        method=args.partition,
        strategy=args.strategy,
        width=args.width,
        rebalance=args.rebalance,
        memory=None if args.memory is None else parse_bytes(args.memory),
        scratch=args.scratch,
        bias=args.bias,
        neurons=args.neurons,
        truth=args.truth,
        categories=args.categories,
        seed=args.seed,
        check=args.check,
        repeat=args.repeat,
    )


def _print(report: dict[str, Any], args: argparse.Namespace) -> int:
    """Print the report and return the exit code: wrong categories are a failure."""
    with reader_may_leave():  # the other ranks still wait for this one
        if args.json:
            print_json(report)
        else:
            from sparsecomm.launch.sdnn_table import show_sdnn

            show_sdnn(report)
    return 1 if report["verified"] is False else 0
