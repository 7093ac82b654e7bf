"""Faults in jobs on a virtual cluster of four nodes of two ranks: what is done, what came of it, and whether it should.

Every job must end soon after its fault, with an exit code that is not 0, and name the rank or node that is at fault and
no other; nothing may be left running.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sparsecomm.launch.cluster.names import LINK
from tests.cluster.conftest import Clusters, system_env
from tests.jobs import BIN, ROOT

NUM_RANKS, NUM_NODES = 8, 4
DEADLINE_S = 5.0
SOON_S = 10.0
KINDS = ("kill", "stop", "raise", "exit", "vanish", "cut")
SILENT = ("stop", "cut")  # found by nothing but a deadline
_START_S = 100.0
_STAY_S = 20.0


@dataclass(frozen=True)
class Fault:
    """One fault: what happens to which rank (`cut`: to the link of its node) of a job under which MPI, and when."""

    kind: str
    mpi: str
    rank: int
    after_s: float

    @property
    def node(self) -> int:
        return self.rank * NUM_NODES // NUM_RANKS

    @property
    def limit_s(self) -> float:
        return SOON_S + (DEADLINE_S if self.kind in SILENT else 0.0)

    @property
    def culprit(self) -> str:
        """What the verdict must name."""
        return f"host node{self.node}" if self.kind == "cut" else f"rank {self.rank} on host node{self.node}"


@dataclass(frozen=True)
class Outcome:
    """What came of a fault: seconds from it to the end of the job, exit code, verdicts, and processes left."""

    fault: Fault
    seconds: float
    rc: int
    verdicts: tuple[str, ...]
    left: int
    stderr: str

    @property
    def problem(self) -> str:
        """What should have been otherwise, and soon; empty where nothing should."""
        if self.rc and self.seconds > self.fault.limit_s:
            return f"ended after {self.seconds:.1f} s, more than {self.fault.limit_s:g}"
        return self.wrong

    @property
    def wrong(self) -> str:
        """What should have been otherwise, however long it took."""
        if self.rc == 0:
            return "exit code 0"
        if self.left:
            return f"{self.left} processes left"
        if not self.verdicts:
            return "nobody is named"
        wrong = [verdict for verdict in self.verdicts if not verdict.startswith(self.fault.culprit)]
        return f"blamed: {wrong[0]}" if wrong else ""


def draw(number: int, seed: int, kinds: Sequence[str] = KINDS) -> list[Fault]:
    """Draw faults: kinds and MPIs in turn, ranks and moments at random."""
    rng = np.random.default_rng(seed)
    pairs = [(kind, mpi) for mpi in ("mpich", "openmpi") for kind in kinds]
    return [
        Fault(*pairs[i % len(pairs)], int(rng.integers(NUM_RANKS)), float(rng.uniform(0, 2))) for i in range(number)
    ]


def commit(fault: Fault, cluster: Clusters) -> Outcome:
    """Start a job, wait until its ranks multiply, do the fault, and wait for the end.

    On a busy machine a launcher may fail to start at all; then it is tried once more.
    """
    try:
        return _commit(fault, cluster)
    except TimeoutError:
        return _commit(fault, cluster)


def _commit(fault: Fault, cluster: Clusters) -> Outcome:
    how = fault.kind if fault.kind in ("raise", "exit", "vanish") else "none"
    seconds = fault.after_s if how != "none" else 600.0
    job = ["python", "-m", "tests.faulty", str(fault.rank), how, str(seconds)]
    command = cluster.command("run", "--env", str(BIN[fault.mpi].parent), "--timeout", "120", "--", *job)
    environ = {**os.environ, **cluster.env, "SPARSECOMM_DEADLINE": str(DEADLINE_S)}
    before = _processes(cluster)  # Slurm, where it is installed
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        with open(out, "wb") as stdout, open(err, "wb") as stderr:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environ, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr
            )
            try:
                began = _do(fault, cluster, out, process)
                rc = process.wait(fault.limit_s + 60)
                ended = time.time()
            finally:
                process.kill()
                _restore(fault, cluster)
        text = err.read_text(errors="replace")
        verdicts = tuple(dict.fromkeys(re.findall(r"at fault: (.*)", text)))
        return Outcome(fault, ended - began(), rc, verdicts, _left(cluster, before), text)


def _do(fault: Fault, cluster: Clusters, out: Path, process: subprocess.Popen[bytes]) -> Callable[[], float]:
    """Do the fault, or leave it to the job; return what tells, at the end, when it was."""
    _until(out, "running", process)
    if fault.kind in ("raise", "exit", "vanish"):
        return lambda: float(re.findall(r"fault (\S+)", out.read_text())[0])
    time.sleep(fault.after_s)
    if fault.kind == "cut":
        _set_link(fault, cluster, "down")
    else:
        pid = _until(out, rf"pid {fault.rank} (\d+)\s", process)  # lines of different ranks come in any order
        os.kill(int(pid), signal.SIGKILL if fault.kind == "kill" else signal.SIGSTOP)
    moment = time.time()
    return lambda: moment


def _until(path: Path, pattern: str, process: subprocess.Popen[bytes]) -> str:
    """Wait until a job has printed something, and return its last part in parentheses."""
    until = time.monotonic() + _START_S
    while not (found := re.search(pattern, path.read_text(errors="replace"))):
        if process.poll() is not None or time.monotonic() > until:
            raise TimeoutError(f"the job did not come up: {path.read_text()} {path.with_name('err').read_text()}")
        time.sleep(0.05)
    return found[found.lastindex or 0]


def _set_link(fault: Fault, cluster: Clusters, state: str) -> None:
    namespace = f"sparsecomm-{cluster.name}-node{fault.node}"
    subprocess.run(["ip", "-n", namespace, "link", "set", LINK, state], check=True, env=system_env(), timeout=200)


def _restore(fault: Fault, cluster: Clusters) -> None:
    if fault.kind == "cut":
        _set_link(fault, cluster, "up")


def _left(cluster: Clusters, before: set[str]) -> int:
    """Return how many processes are there to stay; Slurm, too, starts some now and then."""
    until = time.monotonic() + _STAY_S
    left = _processes(cluster) - before
    while left and time.monotonic() < until:
        time.sleep(0.2)
        left &= _processes(cluster)
    return len(left)


def _processes(cluster: Clusters) -> set[str]:
    """Return the processes in the namespaces of the nodes."""
    names = [f"sparsecomm-{cluster.name}-node{node}" for node in range(NUM_NODES)]
    pids = [subprocess.check_output(["ip", "netns", "pids", name], env=system_env(), timeout=200) for name in names]
    return {pid.decode() for text in pids for pid in text.split()}
