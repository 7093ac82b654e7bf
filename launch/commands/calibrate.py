"""`sparsecomm calibrate`: measure what messages, copies and products cost here, for the predictions of plans."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from sparsecomm.errors import InputError
from sparsecomm.launch.options import Parsers, add_json, add_topology, print_json, reader_may_leave

if TYPE_CHECKING:
    from sparsecomm.calibration import Calibration
    from sparsecomm.collectives.transport.base import Transport


def add_parser(commands: Parsers) -> argparse.ArgumentParser:
    parser = commands.add_parser("calibrate", help="measure messages, copies and products here, for predictions")
    add_topology(parser, required=False)
    parser.add_argument("-n", "--ranks", type=int, help="start this many ranks here (those of the topology, or 2)")
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=Path,
        help="where to write (the user's cache folder, by name of the host)",
    )
    add_json(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    from sparsecomm.launch.start import start_ranks
    from sparsecomm.launch.world import env_size
    from sparsecomm.topology import Topology

    if env_size(os.environ) is not None:
        return _in_job(args)
    wanted = Topology.parse(args.topology).num_ranks if args.topology else 2
    num_ranks = wanted if args.ranks is None else args.ranks
    if num_ranks < 1 or (args.topology and num_ranks != wanted):
        raise InputError(f"-n {num_ranks} does not fit; give at least 1, or the {wanted} ranks of the topology")
    return start_ranks(num_ranks, [sys.executable, "-m", "sparsecomm", *args.argv])


def _in_job(args: argparse.Namespace) -> int:
    """Measure as one rank of a job, and leave together with the others."""
    from sparsecomm.apps.job import on_root
    from sparsecomm.calibration import default_path
    from sparsecomm.collectives.transport.leave import leave_on_signals
    from sparsecomm.collectives.transport.open import open_transport
    from sparsecomm.launch.start import report_code

    leave_on_signals()
    transport = open_transport()
    code = 1
    try:
        made = _measure(args, transport)
        path = args.output or default_path()
        on_root(transport, lambda: made.save(path))
        if transport.rank == 0:
            _print(args, made, path)
        transport.barrier()
        transport.close()
        code = 0
    except InputError:
        code = 2
        raise
    finally:
        if transport.rank == 0:
            report_code(code)
    return code


def _measure(args: argparse.Namespace, transport: Transport) -> Calibration:
    from sparsecomm.apps.calibrate import calibrate
    from sparsecomm.apps.job import on_all
    from sparsecomm.collectives.transport.open import detect_topology
    from sparsecomm.launch.progress import Progress
    from sparsecomm.topology import Topology

    detected = detect_topology(transport)
    topology = on_all(transport, lambda: Topology.parse(args.topology)) if args.topology else detected
    with Progress(enabled=transport.rank == 0) as say:
        return calibrate(topology, transport, say=say)


def _print(args: argparse.Namespace, made: Calibration, path: Path) -> None:
    from sparsecomm.launch.calibration_table import show_calibration

    with reader_may_leave():
        if args.json:
            print_json({"schema": "sparsecomm.calibrate/1", "file": str(path), **asdict(made)})
        else:
            show_calibration(made)
            print(f"wrote {path}")
