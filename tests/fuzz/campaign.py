"""All inputs of a campaign, in processes that may die, and the table of what became of them."""

from __future__ import annotations

import fcntl
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks._machine import machine, machine_text
from tests.fuzz.fire import BASE, FREE_ROWS, LARGE, MAX_RANKS, MEMORY, PER_BYTE, SECONDS, Score
from tests.fuzz.targets import TARGETS
from tests.jobs import ROOT

TABLE = ROOT / "benchmarks" / "results" / "fuzz_campaign.md"
FOUND = ROOT / ".fuzz"  # what each part of a campaign has found; the table is made of all of it


@dataclass
class Outcome:
    """The score of a reader's inputs, and what ended processes."""

    name: str
    num_inputs: int
    score: Score = field(default_factory=Score)
    crashes: list[str] = field(default_factory=list)
    hangs: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def line(self) -> str:
        score = self.score
        counts = (self.num_inputs, score.refused, score.read, len(score.failures), len(self.crashes), len(self.hangs))
        ratio = f"{score.largest_ratio:.1f}" if score.largest_ratio else "-"
        cells = [self.name, *(f"{count:,}" for count in counts), f"{score.largest_bytes / 2**20:.2f}", ratio]
        return "| " + " | ".join([*cells, f"{self.seconds:.0f}"]) + " |"

    def problems(self) -> list[str]:
        return [*self.score.failures, *(f"{n}: crash" for n in self.crashes), *(f"{n}: hang" for n in self.hangs)]


def run_reader(name: str, num_inputs: int) -> Outcome:
    """Send inputs 0 .. num_inputs - 1 to a reader; after a crash or a hang go on with the next one."""
    outcome, first, began = Outcome(name, num_inputs), 0, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sparsecomm-fuzz-") as folder:
        while first < num_inputs:
            done, rc, words = _run_child(name, first, num_inputs - first, Path(folder))
            for score in done:
                outcome.score.add(score)
            first += len(done)
            if first < num_inputs:
                (outcome.hangs if -rc in (signal.SIGPROF, signal.SIGALRM) else outcome.crashes).append(
                    f"{first} (exit code {rc}) {words}"
                )
                first += 1
    outcome.seconds = time.monotonic() - began
    return outcome


def _run_child(name: str, first: int, count: int, folder: Path) -> tuple[list[Score], int, str]:
    command = [sys.executable, "-m", "tests.fuzz.fire", name, str(first), str(count), str(folder)]
    with tempfile.TemporaryFile("w+") as words:
        child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=words, text=True)
        assert child.stdout is not None
        scores = [Score(**json.loads(line)) for line in _whole_lines(child.stdout)]
        rc = child.wait()
        words.seek(0)
        return scores, rc, words.read()[-500:]


def _whole_lines(stream: Iterator[str]) -> Iterator[str]:
    return (line for line in stream if line.endswith("\n"))


def keep(outcome: Outcome) -> None:
    """Write down what became of a reader's inputs, and the table anew."""
    _keep(f"reader {outcome.name}", asdict(outcome) | {"score": asdict(outcome.score)})


def keep_plans(name: str, text: str) -> None:
    """Write down what became of random products, and the table anew."""
    _keep(f"plans {name}", text)


def _keep(name: str, found: object) -> None:
    FOUND.mkdir(exist_ok=True)
    with (FOUND / "lock").open("w") as lock:  # parts of a campaign may run side by side
        fcntl.flock(lock, fcntl.LOCK_EX)
        (FOUND / f"{name.replace(' ', '_')}.json").write_text(json.dumps(found))
        _write_table()


def _found(kind: str) -> list[Any]:
    return [json.loads(path.read_text()) for path in sorted(FOUND.glob(f"{kind}_*.json"))]


def _write_table() -> None:
    outcomes = [Outcome(**found | {"score": Score(**found["score"])}) for found in _found("reader")]
    lines = [outcome.line() for name in TARGETS for outcome in outcomes if outcome.name == name]
    command = "python -m pytest -m campaign tests/unit/test_fuzz_campaign.py"
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text(_text(lines, _found("plans"), machine_text({**machine(), "command": command})))


def _text(lines: list[str], plans: list[str], facts: str) -> str:
    head = f"""# Fuzz campaign

Random inputs to every reader: mutations of sound files and structured garbage, each drawn from its reader's name and
its number alone. A reader must return a matrix (a topology, a plan) that holds together, or raise InputError. Anything
else is a failure; a process that died is a crash, one that took more than {SECONDS} s of processor time over an input
a hang.

Allocations are those that Python and numpy report, beyond what was there before the input. More than
{BASE >> 20} MiB + {PER_BYTE} bytes for each byte of the input (unpacked) is a failure, and so is more than 2 GiB of
address space. Ratio: largest allocation divided by the size of the input, over inputs of {LARGE >> 10} KiB or more.
What is free whatever the size of the input is made small for the campaign: {FREE_ROWS:,} rows without entries instead
of 2^24, {MAX_RANKS:,} ranks instead of 2^24, {MEMORY >> 20} MiB of memory for a generator instead of the machine's.

| reader | inputs | refused | read | failures | crashes | hangs | largest allocation, MiB | ratio | seconds |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
"""
    return head + "\n".join([*lines, "", *plans, "", "```text", facts, "```", ""])
