"""Options that several commands share, and what they must satisfy."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from sparsecomm.errors import InputError

if TYPE_CHECKING:
    from sparsecomm.plan_cache import PlanCache

DTYPES = ("float32", "float64", "complex64", "complex128")
Parsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_matrix(parser: argparse.ArgumentParser, help_text: str = "a file or a generator, see below") -> None:
    parser.add_argument("matrix", metavar="MATRIX", help=help_text)
    parser.add_argument("--one-based", action="store_true", help="the edge list counts vertices from 1")


def add_topology(parser: argparse.ArgumentParser, *, required: bool, several: bool = False) -> None:
    action = "append" if several else "store"
    help_text = "the machine, see below" + ("; with --what-if any number of them" if several else "")
    parser.add_argument("-t", "--topology", metavar="TOPOLOGY", required=required, action=action, help=help_text)


def add_planning(parser: argparse.ArgumentParser) -> None:
    """Add what decides a plan: partition, strategy, width, dtype."""
    parser.add_argument(
        "-p",
        "--partition",
        metavar="METHOD",
        default="block",
        help="as of `sparsecomm partition -m`, or a partition directory (block)",
    )
    parser.add_argument(
        "-s",
        "--strategy",
        default="auto",
        help="auto (the fastest by prediction, direct unless it gains a tenth) or one by name, see docs/strategies.md",
    )
    parser.add_argument(
        "--no-row-mode",
        dest="row_mode",
        action="store_false",
        help="multiply only at the owners of rows: for values that change at every step",
    )
    parser.add_argument("-k", "--width", type=int, default=64, help="columns of X (64)")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of values and of X (float32)")


def add_calibration(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--calibration", metavar="FILE", type=Path, help="predict with what `sparsecomm calibrate -o FILE` measured"
    )


def add_cache(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-cache", action="store_true", help="plan anew, and keep nothing for the next time")


def plan_cache(args: argparse.Namespace) -> PlanCache | None:
    """Return the cache of plans that the environment asks for, unless the user wants none."""
    from sparsecomm.plan_cache import PlanCache

    return None if args.no_cache else PlanCache.of(os.environ)


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output, nothing else")


def check_planning(args: argparse.Namespace) -> None:
    """Refuse a width, strategy or partition method that cannot be.

    Raises:
        InputError: with what was given and what can be.
    """
    from sparsecomm.collectives.strategies import choose
    from sparsecomm.store import HEADER

    if args.width < 1:
        raise InputError(f"width {args.width} is not at least 1; give the number of columns of X with -k")
    if args.strategy != "auto":
        choose({}, args.strategy, row_mode=args.row_mode)
    if not (Path(args.partition) / HEADER).is_file():
        _check_method(args.partition)


def _check_method(method: str) -> None:
    from sparsecomm.partition.registry import check_method

    if Path(method).is_dir():
        raise InputError(
            f"{method} is not a partition directory: it has no header; make one with `sparsecomm partition`"
        )
    check_method(method)


def check_matrix(spec: str) -> None:
    """Refuse a MATRIX that is neither there nor a generator, before a job is started for it.

    Raises:
        InputError: with the path.
    """
    from sparsecomm.io.generators import is_generator

    if not is_generator(spec) and not Path(spec).exists():
        raise InputError(f"{spec}: no such file, and no generator of that name; see `sparsecomm --help`")


def check_writable(path: Path) -> None:
    """Refuse a file that cannot be written, before the work for it is done.

    Raises:
        InputError: its folder is missing, or it is a folder itself.
    """
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise InputError(f"{path} is no file that can be written; give the name of a file in a folder that exists")


def is_rank_0() -> bool:
    """Say whether this process is the one of a job that works and prints where one suffices."""
    from sparsecomm.launch.world import env_rank

    return env_rank(os.environ) in (None, 0)


def print_json(report: dict[str, Any]) -> None:
    import json

    print(json.dumps(report, indent=1, allow_nan=False))


@contextmanager
def reader_may_leave() -> Iterator[None]:
    """Print what is printed here, and go on in silence where the reader, `head` for example, has seen enough."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
