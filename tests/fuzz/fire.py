"""Run inputs through one reader and measure each of them; as a program, in a process that may die of it.

    python -m tests.fuzz.fire TARGET FIRST COUNT FOLDER

It prints a line for each input, so that whoever counts them knows which one killed it; that one lies in FOLDER.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
import tracemalloc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from unittest import mock

from sparsecomm.errors import InputError
from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS

# What is free whatever the size of the input is made small, so that the rest can be seen: 2**24 rows without entries,
# 2**24 ranks, all the memory there is for a generator.
FREE_ROWS, MAX_RANKS, MEMORY = 1 << 12, 1 << 12, 8 << 20
# What any input may allocate: the reader's own working memory (scipy's reader takes text in pieces of 1 MiB, and its
# threads hold up to three of them), and so much for every byte.
BASE, PER_BYTE = 4 << 20, 64
LARGE = 1 << 16  # bytes from which an allocation says something about the size of the input
SECONDS = 20  # of processor time, after which an input counts as a hang
WAIT = 600  # seconds on the clock after which it does, too: it waits for something
_SPARE = 2 << 30  # address space beyond what the process has at the start: catches what tracemalloc cannot see


@dataclass
class Score:
    """What became of the inputs.

    Args:
        refused, read: how many.
        failures: of the others, `NUMBER: what happened`.
        largest_bytes: most memory that one input allocated.
        largest_ratio: most memory divided by the bytes of the input, over those of 64 KiB or more.
    """

    refused: int = 0
    read: int = 0
    failures: list[str] = field(default_factory=list)
    largest_bytes: int = 0
    largest_ratio: float = 0.0

    def add(self, other: Score) -> None:
        self.refused += other.refused
        self.read += other.read
        self.failures += other.failures
        self.largest_bytes = max(self.largest_bytes, other.largest_bytes)
        self.largest_ratio = max(self.largest_ratio, other.largest_ratio)


@contextmanager
def small_machine() -> Iterator[None]:
    """Make what is free small, every warning an error, and allocations visible."""
    with (
        mock.patch("sparsecomm.io.limits._FREE_ROWS", FREE_ROWS),
        mock.patch("sparsecomm.io.limits.memory_limit", return_value=MEMORY),
        mock.patch("sparsecomm.presets.MAX_RANKS", MAX_RANKS),
        mock.patch("sparsecomm.topology_toml.MAX_RANKS", MAX_RANKS),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("error")
        tracemalloc.start(1)
        try:
            yield
        finally:
            tracemalloc.stop()


def fire(target: Target, numbers: range, folder: Path) -> Score:
    """Write and read each input; what is neither read nor refused is a failure."""
    score = Score()
    with small_machine():
        for number in numbers:
            _fire_one(target, number, folder, score)
    return score


def _fire_one(target: Target, number: int, folder: Path, score: Score) -> None:
    size = target.write(Random(f"{target.name} {number}"), folder)
    allowed = BASE + max(PER_BYTE * size, MEMORY if target.name in ("generator", "topology name") else 0)
    used = _read(target, number, folder, score)
    if used > allowed:  # what is loaded on first use, and what other threads allocate, is not there a second time
        used = min(used, _read(target, number, folder, Score()))
    if used > allowed:
        score.failures.append(f"{number}: allocated {used} bytes for an input of {size}")
    score.largest_bytes = max(score.largest_bytes, used)
    if size >= LARGE:
        score.largest_ratio = max(score.largest_ratio, used / size)


def _read(target: Target, number: int, folder: Path, score: Score) -> int:
    """Read the input and return the bytes that it allocated at most."""
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    try:
        target.read(folder)
        score.read += 1
    except InputError as err:
        score.refused += 1
        if "does not fit the memory" in str(err):
            score.failures.append(f"{number}: ran out of memory")
    except Exception as err:
        score.failures.append(f"{number}: {type(err).__name__}: {str(err)[:200]}")
    return tracemalloc.get_traced_memory()[1] - before


def _main(name: str, first: str, count: str, folder: str) -> None:
    target = TARGETS[name]
    fire(target, range(1), Path(folder))  # what is loaded on first use is no allocation of the first input
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _SPARE, used + _SPARE))
    with small_machine():
        for number in range(int(first), int(first) + int(count)):
            # Not handled: they end a process that is lost in C, too.
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            signal.alarm(WAIT)
            score = Score()
            _fire_one(target, number, Path(folder), score)
            print(json.dumps(asdict(score)), flush=True)


if __name__ == "__main__":
    _main(*sys.argv[1:])
