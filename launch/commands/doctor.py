"""`sparsecomm doctor`: one page on this machine and job, and what is wrong with it."""

from __future__ import annotations

import argparse

from sparsecomm.launch.options import Parsers, add_json


def add_parser(commands: Parsers) -> argparse.ArgumentParser:
    parser = commands.add_parser("doctor", help="what this machine and job are, and what is wrong with them")
    add_json(parser)
    parser.add_argument(
        "--probe-gpu-mpi", action="store_true", help="try in a child job whether MPI can send GPU memory"
    )
    return parser


def run(args: argparse.Namespace) -> int:
    from sparsecomm.launch.doctor.run import run_doctor

    return run_doctor(as_json=args.json, probe=args.probe_gpu_mpi)
