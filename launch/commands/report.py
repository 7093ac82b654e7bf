"""`sparsecomm report`: what a plan will move, or what a recorded run did."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsecomm.launch.options import Parsers, add_calibration, add_json, check_writable, is_rank_0, print_json

if TYPE_CHECKING:
    from sparsecomm.apps.report.case import Case
    from sparsecomm.apps.report.transfers import Transfers

_EXPORTS = {
    "trace": "write the time line for Perfetto or chrome://tracing; compressed if FILE ends with .gz",
    "csv": "write one line for each message",
    "npz": "write the messages and the matrices rank x rank and node x node as arrays",
    "prometheus": "write the figures in the text format of Prometheus",
}


def add_parser(commands: Parsers) -> argparse.ArgumentParser:
    parser = commands.add_parser("report", help="show a plan, or what `spmm --profile` recorded: tables, page, trace")
    parser.add_argument("directory", metavar="DIR", type=Path, help="of `plan -o` or of `spmm --profile`")
    parser.add_argument("--html", metavar="FILE", type=Path, help="write a page that opens offline in any browser")
    for name, text in _EXPORTS.items():
        parser.add_argument(f"--{name}", metavar="FILE", type=Path, help=text)
    add_calibration(parser)
    add_json(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    if not is_rank_0():
        return 0
    from sparsecomm.apps.report.case import load_case
    from sparsecomm.apps.report.page import check_plotly, write_page
    from sparsecomm.apps.report.summary import summarise
    from sparsecomm.apps.report.transfers import match
    from sparsecomm.calibration import Calibration

    for path in (args.html, *(getattr(args, name) for name in _EXPORTS)):
        if path is not None:
            check_writable(path)
    if args.html is not None:
        check_plotly()
    case = load_case(args.directory, Calibration.load(args.calibration) if args.calibration else None)
    if case.calibration is not None:
        case.calibration.warn_of_presets(case.topology)
    transfers = match(case.ranks)
    report = summarise(case, transfers)
    if args.html is not None:
        size = write_page(args.html, case, report, transfers)
        print(f"wrote {args.html} ({size / 1e6:.1f} MB)", file=sys.stderr)
    _export(args, case, report, transfers)
    if args.json:
        print_json(report)
    else:
        from sparsecomm.launch.report_tables import show_report

        show_report(report)
    return 0


def _export(args: argparse.Namespace, case: Case, report: dict[str, Any], transfers: Transfers) -> None:
    from sparsecomm.apps.report.files import write_csv, write_npz, write_prometheus
    from sparsecomm.apps.report.trace import write_trace

    writers: dict[str, Callable[[Path], str | None]] = {
        "trace": lambda path: write_trace(path, case, transfers),
        "csv": lambda path: write_csv(path, case),
        "npz": lambda path: write_npz(path, case),
        "prometheus": lambda path: write_prometheus(path, report),
    }
    for name, write in writers.items():
        path = getattr(args, name)
        if path is not None:
            note = write(path)
            print(f"wrote {path}" + (f" ({note})" if note else ""), file=sys.stderr)
