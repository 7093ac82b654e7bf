"""`sparsecomm compare`: two plans or profiles side by side, with an exit code for automatic checks."""

from __future__ import annotations

import argparse
from pathlib import Path

from sparsecomm.launch.options import Parsers, add_json, is_rank_0, print_json


def add_parser(commands: Parsers) -> argparse.ArgumentParser:
    parser = commands.add_parser("compare", help="two plans or profiles side by side; fails where a rule is broken")
    parser.add_argument("first", metavar="A", type=Path, help="a directory of `plan -o` or of `spmm --profile`")
    parser.add_argument("second", metavar="B", type=Path, help="another")
    parser.add_argument(
        "--fail-if",
        metavar="RULE",
        action="append",
        default=[],
        help="exit with 1 where B is so: `network.bytes > 1.05x` (times A), `network.imbalance > 2`; may be repeated",
    )
    add_json(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    if not is_rank_0():
        return 0
    from sparsecomm.apps.report.case import load_case
    from sparsecomm.apps.report.compare import Rule, compare
    from sparsecomm.apps.report.summary import summarise
    from sparsecomm.launch.report_tables import show_comparison

    rules = [Rule.parse(text) for text in args.fail_if]
    first, second = (summarise(load_case(path)) for path in (args.first, args.second))
    found = compare(first, second, rules)
    if args.json:
        print_json(found)
    else:
        show_comparison(found)
    return 1 if found["broken"] else 0
