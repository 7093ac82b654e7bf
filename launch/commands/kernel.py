"""`sparsecomm kernel`: the local product predicted and measured, and what limits it."""

from __future__ import annotations

import argparse

from sparsecomm.errors import InputError
from sparsecomm.launch.options import Parsers, add_json, add_matrix, check_matrix, is_rank_0, print_json

REORDERINGS = ("none", "rcm", "twins", "anneal")


def add_parser(commands: Parsers) -> argparse.ArgumentParser:
    parser = commands.add_parser("kernel", help="predict and measure the local product, and say what limits it")
    add_matrix(parser)
    parser.add_argument("-k", "--width", type=int, default=64, help="columns of X (64)")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32", help="of A and X (float32)")
    parser.add_argument("--threads", type=int, help="that share the product (the cores of this process)")
    parser.add_argument("--repeat", type=int, default=9, help="products that are measured (9)")
    parser.add_argument("--measure", action="store_true", help="measure the machine again, not only the first time")
    parser.add_argument(
        "--reorder", choices=REORDERINGS, default="none", help="rows, for blocks that share columns (none)"
    )
    add_json(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    if not is_rank_0():
        return 0
    for name, value, what in (
        ("-k", args.width, "the number of columns of X"),
        ("--repeat", args.repeat, "the number of timed products"),
        ("--threads", args.threads, "how many may work"),
    ):
        if value is not None and value < 1:
            raise InputError(f"{name} {value} is not at least 1; give {what} with {name}")
    check_matrix(args.matrix)
    from sparsecomm.apps.local_report import judge_product
    from sparsecomm.io.matrix import read_matrix
    from sparsecomm.kernels.threads import num_threads
    from sparsecomm.launch.progress import Progress

    threads = args.threads or num_threads()
    if threads > num_threads():
        raise InputError(f"--threads {threads} is more than the {num_threads()} cores that this process may use")
    with Progress() as say:
        say(f"reading {args.matrix}")
        matrix = read_matrix(args.matrix, dtype=args.dtype, one_based=args.one_based)
        report = judge_product(
            matrix,
            args.matrix,
            args.width,
            threads,
            repeat=args.repeat,
            measure=args.measure,
            reorder=args.reorder,
            say=say,
        )
    if args.json:
        print_json(report)
    else:
        from sparsecomm.launch.kernel_table import show_kernel

        show_kernel(report)
    return 0
