"""The command line: one file per command, errors as one line, and an exit code that means something."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from sparsecomm import __version__
from sparsecomm.errors import InputError, SparseCommError
from sparsecomm.launch.commands import (
    calibrate,
    cluster,
    doctor,
    gnn,
    kernel,
    launch,
    partition,
    plan,
    sdnn,
    spmm,
    topology,
)
from sparsecomm.launch.options import reader_may_leave
from sparsecomm.launch.parser import Parser

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

_EPILOG = """MATRIX is a file (.mtx[.gz], .npz, METIS .graph[.gz], edge list .txt/.tsv/.edges[.gz]) or a generator:
rmat:SCALE[:EDGEFACTOR[:SEED]], er:N:DEGREE[:SEED], grid2d:N[:M], grid3d:N, grid3d27:N, radixnet:N:LAYER.
TOPOLOGY is uniform:NxG (N nodes of G ranks), nodes:3,3,1, summit:N, frontier:N, perlmutter:N, dgx-h100:N, dgx-1:N, or a
.toml file."""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser: argparse.ArgumentParser = Parser(
        prog="sparsecomm",
        description="Partition a sparse matrix, plan its communication, multiply with it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"sparsecomm {__version__}")
    parser.add_argument("-v", "--verbose", action="store_true", help="log what the library does to standard error")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for module in (plan, partition, spmm, sdnn, gnn, kernel, topology, calibrate, doctor, launch, cluster):
        command = module.add_parser(commands)
        command.epilog, command.formatter_class = _EPILOG, argparse.RawDescriptionHelpFormatter
        command.set_defaults(run=module.run)
    _add_reports(commands)
    return parser


def _add_reports(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands that look at what others wrote; they need no MATRIX."""
    from sparsecomm.launch.commands import compare, plot, report

    for module in (report, compare, plot):
        module.add_parser(commands).set_defaults(run=module.run)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 done and checked, 2 usage or bad input, 130 Ctrl-C, 1 any other."""
    given = sys.argv[1:] if argv is None else list(argv)
    args = make_parser().parse_args(given)
    args.argv = given
    logging.basicConfig(level=logging.DEBUG if args.verbose else logging.WARNING, stream=sys.stderr)
    code: int = DONE
    try:
        with reader_may_leave():
            code = args.run(args)
    except SparseCommError as err:
        if _in_job() and not err.agreed:
            raise  # the other ranks know nothing of it: the hook that ends the job must see it
        return _complain(err, USAGE if isinstance(err, InputError) else FAILED)
    except KeyboardInterrupt:
        if _in_job():
            raise
        print("sparsecomm: interrupted", file=sys.stderr, flush=True)
        return INTERRUPTED
    return code


def _in_job() -> bool:
    """Say whether this process has joined others."""
    from sparsecomm.launch.world import env_size

    return "mpi4py.MPI" in sys.modules and (env_size(os.environ) or 1) > 1


def _complain(err: SparseCommError, code: int) -> int:
    """Print an error once; in a job all ranks raise it together, and rank 0 speaks for them."""
    from sparsecomm.launch.world import env_rank

    if env_rank(os.environ) in (None, 0):
        print(f"sparsecomm: error: {err}", file=sys.stderr, flush=True)
    return code
