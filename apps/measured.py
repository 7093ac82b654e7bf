"""Timed products of a distributed matrix, and what they moved."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sparsecomm.apps.chunks import Tuning
from sparsecomm.apps.matrix import DistMatrix
from sparsecomm.apps.pace import Pace
from sparsecomm.apps.summary import Json
from sparsecomm.apps.transposed import TransposedMatrix
from sparsecomm.arrays import as_host, on_device, settle
from sparsecomm.collectives.executed import Executed
from sparsecomm.collectives.profile import Profile
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.errors import ExchangeError
from sparsecomm.topology import Topology
from sparsecomm.volume import Volume

Operator = DistMatrix | TransposedMatrix


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """Products that were made again and again.

    Args:
        y: this rank's rows of the last one.
        times: (num_timed,) seconds of the slowest rank.
        waited_s: seconds of one product in which this rank did nothing but communicate.
        tuning: into how many chunks the products were cut; None on a GPU, where they are made whole.
        moved: what this rank moved in all of them.
    """

    y: npt.NDArray[Any]
    times: npt.NDArray[np.float64]
    waited_s: float
    tuning: Tuning | None
    moved: Executed

    def to_json(self, transport: Transport) -> Json:
        """Return times, the exposed communication of a product, and the chunks.

        Note: Collective over comm.
        """
        times, ranks = self.times, transport.num_ranks
        found = {"median": float(np.median(times)), "min": float(times.min()), "max": float(times.max())}
        waited = {way: float(transport.reduce(np.array([self.waited_s]), way)[0]) for way in ("sum", "max")}
        exposed = {"mean": waited["sum"] / ranks, "max": waited["max"]}
        chunks, tried = (self.tuning.kept, self.tuning.seconds) if self.tuning else (1, {})
        return {
            "time_s": found,
            "exposed_s": exposed if self.tuning else None,
            "chunks": chunks,
            "chunks_tried": {str(number): seconds for number, seconds in tried.items()} or None,
        }

    def check_moved(self, planned: Volume, row_bytes: int, topology: Topology, transport: Transport) -> Json:
        """Return what one product moved, and hold both sides of it against the plan.

        Args:
            planned: rows and messages of a product that is made whole.
            row_bytes: of X.
            topology: names the levels.
            transport: over all ranks.

        Raises:
            ExchangeError: on every rank, when a level moved other rows, bytes or messages than planned.

        Note: Collective over comm.
        """
        runs, chunks = self.times.size + 1, (self.tuning.kept if self.tuning else None) or 1
        counted = _total(self.moved, transport)
        # A row that travels in pieces counts for each of them.
        rows, messages = planned.rows * runs * chunks, planned.messages * runs * chunks
        wanted = {"rows": rows, "bytes": planned.rows * runs * row_bytes, "messages": messages}
        error = None
        for side in ("sent", "received"):
            for noun, values in wanted.items():
                seen = getattr(counted, f"{noun}_{side}") + (counted.bytes_loaded if noun == "bytes" else 0)
                if not np.array_equal(seen, values):
                    error = ExchangeError(
                        f"{runs} products {side} {seen.tolist()} {noun} per level, not {values.tolist()}"
                    )
        transport.agree(error)
        shown = {
            "rows": counted.rows_sent // chunks,
            "bytes": counted.bytes_sent,
            "messages": counted.messages_sent,
            "bytes_copied": counted.bytes_copied,
            "bytes_loaded": counted.bytes_loaded,
        }
        names = topology.level_names
        return {key: {n: int(v) // runs for n, v in zip(names, values, strict=True)} for key, values in shown.items()}


def measure(
    matrix: DistMatrix,
    operator: Operator,
    x: Any,
    repeat: int,
    transport: Transport,
    profile: Profile | None,
    pace: Pace,
) -> Measured:
    """Multiply once to warm up and `repeat` times more; a product takes as long as its slowest rank.

    Where numbers of chunks are to be tried, that comes before.

    Args:
        matrix: whose products these are.
        operator: the matrix, or its transpose.
        x: this rank's rows.
        repeat: how often.
        transport: over all ranks.
        profile: records the timed products.
        pace: told of each.

    Note: Collective over comm.
    """
    transposed, tuning = operator is not matrix, None
    if not on_device(x):
        tuning = matrix.tuning(x.shape[1], x.dtype, transposed=transposed)
        while tuning.kept is None:
            operator @ x
    before = matrix.executed
    y = operator @ x
    settle(y)
    times, waited_s = np.zeros(repeat), matrix.waited_s
    with profile or nullcontext():
        for i in range(repeat):
            transport.agree(None)  # a barrier, at which a job that was asked to stop does so
            begin = time.perf_counter()
            y = operator @ x
            settle(y)
            times[i] = time.perf_counter() - begin
            pace.made(i + 1)
    waited_s = (matrix.waited_s - waited_s) / repeat
    return Measured(as_host(y), transport.reduce(times, "max"), waited_s, tuning, matrix.executed - before)


def _total(executed: Executed, transport: Transport) -> Executed:
    fields = Executed.__dataclass_fields__
    return Executed(*(transport.reduce(getattr(executed, name), "sum") for name in fields))
