"""`sparsecomm calibrate`: measure what messages, copies and products cost here, for the predictions of plans."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from sparsecomm.launch.in_job import ranks_to_start, run_on_ranks
from sparsecomm.launch.options import Parsers, add_json, add_topology, print_json, reader_may_leave

if TYPE_CHECKING:
    from sparsecomm.calibration import Calibration
    from sparsecomm.collectives.transport.base import Transport

    Found = tuple[Calibration, Path]


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
    parser.set_defaults(partition="block", deadline=None, transport="mpi")  # as of the other commands that run on ranks
    return parser


def run(args: argparse.Namespace) -> int:
    return run_on_ranks(args, lambda args: ranks_to_start(args, 2), _work, _print)


def _work(args: argparse.Namespace, transport: Transport) -> Found:
    from sparsecomm.apps.job import on_root
    from sparsecomm.calibration import default_path

    made = _measure(args, transport)
    path = args.output or default_path()
    on_root(transport, lambda: made.save(path))
    return made, path


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


def _print(found: Found, args: argparse.Namespace) -> int:
    from sparsecomm.launch.calibration_table import show_calibration

    made, path = found
    with reader_may_leave():
        if args.json:
            print_json({"schema": "sparsecomm.calibrate/1", "file": str(path), **asdict(made)})
        else:
            show_calibration(made)
            print(f"wrote {path}")
    return 0
