"""`sparsecomm spmm`: multiply a sparse matrix with a dense block on the ranks of a job."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsecomm.errors import InputError
from sparsecomm.launch.in_job import find_topology, ranks_to_start, run_on_ranks
from sparsecomm.launch.options import (
    Parsers,
    add_cache,
    add_calibration,
    add_json,
    add_matrix,
    add_planning,
    add_topology,
    check_matrix,
    check_planning,
    plan_cache,
    print_json,
    reader_may_leave,
)

if TYPE_CHECKING:
    from sparsecomm.apps.spmm import SpmmOptions
    from sparsecomm.collectives.transport.base import Transport
    from sparsecomm.topology import Topology


def add_parser(commands: Parsers) -> argparse.ArgumentParser:
    parser = commands.add_parser("spmm", help="run A @ X in the job it is started in, or start the ranks itself")
    add_matrix(parser, "a file, a generator (see below), or a partition directory")
    add_topology(parser, required=False)
    add_planning(parser)
    add_calibration(parser)
    add_cache(parser)
    parser.add_argument("--transpose", action="store_true", help="multiply with A.T")
    parser.add_argument("-n", "--ranks", type=int, help="start this many ranks here (those of the topology, or 1)")
    parser.add_argument(
        "--transport",
        choices=["mpi", "shared", "local"],
        default="mpi",
        help="processes; processes that read each other's memory inside a node; or threads of one (mpi)",
    )
    parser.add_argument("--plan", metavar="DIR", type=Path, help="use the plan that `sparsecomm plan -o DIR` wrote")
    parser.add_argument(
        "--guard", action="store_true", help="with -s auto: run the two plans predicted fastest, keep the faster"
    )
    parser.add_argument(
        "--chunks",
        type=_chunks,
        default=1,
        metavar="N|auto",
        help="chunks of columns, some multiplied while others travel; auto tries some and keeps the fastest (1)",
    )
    parser.add_argument(
        "--gpu", action="store_true", help="multiply on the GPU of every rank; ranks of a node share those it has"
    )
    parser.add_argument(
        "--gpu-transport",
        choices=["auto", "ipc", "nccl", "mpi", "pinned"],
        default="auto",
        help="rows on GPUs: read in place inside a node, sent by NCCL, by an MPI that reads GPUs, or through memory of "
        "the host; auto tries (auto)",
    )
    parser.add_argument(
        "--gpu-graphs", action="store_true", help="launch kernels of repeated products as CUDA graphs; not measured"
    )
    parser.add_argument("--check", action="store_true", help="compare with scipy on the whole matrix, on rank 0")
    parser.add_argument(
        "--deadline", type=float, metavar="SECONDS", help="end the job when a rank waits longer; 0 for never (300)"
    )
    parser.add_argument(
        "--profile", metavar="DIR", type=Path, help="record the timed products for `sparsecomm report DIR`"
    )
    parser.add_argument("--repeat", type=int, default=5, help="timed products after one to warm up (5)")
    add_json(parser)
    return parser


def _chunks(text: str) -> int | None:
    """Read a number of chunks; None is `auto`."""
    if text == "auto":
        return None
    try:
        return int(text)
    except ValueError as err:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of chunks nor auto") from err


def run(args: argparse.Namespace) -> int:
    from sparsecomm.profile import VARIABLE

    named = os.environ.get(VARIABLE)
    if args.profile is None and named:
        args.profile = Path(named)
    return run_on_ranks(args, _check, _work, _print)


def _check(args: argparse.Namespace) -> int:
    """Refuse what can be refused before any rank is started, and return how many to start."""
    from sparsecomm.product_store import check_topology, load_product_header
    from sparsecomm.topology import Topology

    _check_options(args)
    check_matrix(args.matrix)
    num_ranks = ranks_to_start(args, load_product_header(args.plan)["num_ranks"] if args.plan is not None else 1)
    if args.plan is not None:
        header = load_product_header(args.plan, num_ranks)
        if args.topology:
            check_topology(args.plan, header, Topology.parse(args.topology))
    return num_ranks


def _check_options(args: argparse.Namespace) -> None:
    from sparsecomm.arrays import check_gpu
    from sparsecomm.collectives.transport.waits import check_deadline
    from sparsecomm.profile_store import KIND
    from sparsecomm.store import check_replaceable

    check_planning(args)
    if args.chunks is not None and not 1 <= args.chunks <= args.width:
        raise InputError(f"--chunks {args.chunks} cannot cut {args.width} columns; give 1 to {args.width}, or auto")
    if args.gpu:
        if args.chunks != 1:
            raise InputError("--chunks cuts products of host memory; leave out --chunks or --gpu")
        _check_gpu_dtype(args.dtype)
        check_gpu()
    elif args.gpu_transport != "auto" or args.gpu_graphs:
        name = "--gpu-graphs" if args.gpu_graphs else "--gpu-transport"
        raise InputError(f"{name} is for blocks on GPUs; add --gpu, or leave it out")
    check_deadline(args.deadline or 0)
    _check_plan_alone(args)
    if args.guard and (args.strategy != "auto" or args.plan is not None):
        raise InputError("--guard chooses between two plans; leave it out, or -s and --plan")
    if args.profile is not None:
        check_replaceable(args.profile, KIND)
    if args.repeat < 1:
        raise InputError(f"repeat {args.repeat} is not at least 1; give the number of timed products with --repeat")


def _check_plan_alone(args: argparse.Namespace) -> None:
    """Refuse choices that a plan has made already: it would run as it is, without a word."""
    for option, given, usual in (("-s", args.strategy, "auto"), ("-p", args.partition, "block")):
        if args.plan is not None and given != usual:
            raise InputError(
                f"plan {args.plan} runs as it was made: leave {option} {given} out, or plan again with it and -o DIR"
            )


def _check_gpu_dtype(dtype: str) -> None:
    from sparsecomm.kernels.cuda_source import DTYPES

    if dtype not in DTYPES:
        raise InputError(f"--gpu multiplies float32 and float64, not {dtype}; give another --dtype, or leave out --gpu")


def _work(args: argparse.Namespace, transport: Transport) -> dict[str, Any]:
    from sparsecomm.apps.spmm import run_spmm
    from sparsecomm.launch.progress import Progress
    from sparsecomm.profile import VARIABLE

    os.environ.pop(VARIABLE, None)  # only the products are recorded here, not what leads to them
    topology = find_topology(args, transport, _check_options, _planned(args, transport.num_ranks))
    near = transport.duplicate(topology.num_load_store if args.transport == "shared" else 0)
    with Progress(enabled=transport.rank == 0) as say:
        report = run_spmm(_options(args), topology, near, say)
    near.close()
    return report


def _planned(args: argparse.Namespace, num_ranks: int) -> Callable[[], Topology] | None:
    """Return what reads the topology that a plan was made for; None without a plan."""
    from sparsecomm.product_store import load_product_header, load_topology

    if args.plan is None:
        return None
    return lambda: load_topology(args.plan, load_product_header(args.plan, num_ranks))


def _options(args: argparse.Namespace) -> SpmmOptions:
    from sparsecomm.apps.spmm import SpmmOptions

    return SpmmOptions(
        matrix=args.matrix,
        width=args.width,
        dtype=args.dtype,
        transpose=args.transpose,
        method=args.partition,
        strategy=args.strategy,
        plan=args.plan,
        check=args.check,
        repeat=args.repeat,
        one_based=args.one_based,
        calibration=args.calibration,
        plans=plan_cache(args),
        guard=args.guard,
        row_mode=args.row_mode,
        profile=args.profile,
        gpu=args.gpu,
        chunks=args.chunks,
        gpu_transport=args.gpu_transport,
        gpu_graphs=args.gpu_graphs,
    )


def _print(report: dict[str, Any], args: argparse.Namespace) -> int:
    """Print the report and return the exit code: a product that is wrong is a failure."""
    with reader_may_leave():  # the other ranks still wait for this one
        if args.json:
            print_json(report)
        else:
            from sparsecomm.launch import tables

            tables.show_spmm(report)
            if args.chunks is None and not report["chunks_tried"]:
                print("products are not cut: no number of chunks is predicted to gain")
    return 1 if report["verified"] is False else 0
