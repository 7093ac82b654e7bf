"""`sparsecomm plot`: one picture of a plan or a recorded run."""

from __future__ import annotations

import argparse
from pathlib import Path

from sparsecomm.launch.options import Parsers, check_writable, is_rank_0

_KINDS = ("levels", "matrix", "messages", "nodes", "ranks")


def add_parser(commands: Parsers) -> argparse.ArgumentParser:
    parser = commands.add_parser("plot", help="draw one picture of a plan or a profile: PNG, SVG or PDF")
    parser.add_argument("kind", metavar="KIND", choices=_KINDS, help=", ".join(_KINDS))
    parser.add_argument("directory", metavar="DIR", type=Path, help="of `plan -o` or of `spmm --profile`")
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, required=True, help="ends with .png, .svg or .pdf")
    return parser


def run(args: argparse.Namespace) -> int:
    if not is_rank_0():
        return 0
    from sparsecomm.apps.report.case import load_case
    from sparsecomm.apps.report.plots import write_plot

    check_writable(args.output)
    write_plot(args.kind, args.output, load_case(args.directory))
    print(f"wrote {args.output}")
    return 0
