"""Application `calibrate`: measures what messages, copies and products cost on the machine of a job."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
from scipy.sparse import csr_array

from sparsecomm.apps.source import Say, quiet
from sparsecomm.calibration import Calibration, Multiplied, fit_link, fit_product
from sparsecomm.collectives.device_pairs import measure_gpus
from sparsecomm.collectives.pairs import SIZES, measure_level
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.errors import InputError
from sparsecomm.io.generators import rmat
from sparsecomm.kernels import spmm
from sparsecomm.kernels.ceilings import Ceilings
from sparsecomm.kernels.threads import num_threads
from sparsecomm.topology import Topology

_WIDTHS: Final = (1, 8, 64, 256)
_EDGE_FACTORS: Final = (16, 2)  # many nonzeros in a row, and few: what a row of Y takes shows where they are few
_SCALE: Final = 13  # of the matrix that is multiplied: X of 64 columns takes 2 MB, more than a core's own caches
_ROW_BYTES: Final = 256
_NUM_ROWS: Final = 1 << 17
_COPIED: Final = 1 << 25  # bytes read and written in one timed copy
_TIMES: Final = 7

Act = Callable[[], object]


def calibrate(
    topology: Topology,
    transport: Transport,
    *,
    sizes: Sequence[int] = SIZES,
    scale: int = _SCALE,
    kernel: bool = True,
    say: Say = quiet,
) -> Calibration:
    """Measure every level of the job, for rows on GPUs too where all ranks have one, and copies and products.

    Args:
        topology: of the job.
        transport: over its ranks.
        sizes: bytes of the messages that are timed.
        scale: of the R-MAT matrix that every rank multiplies.
        kernel: whether rank 0 also measures what a nonzero takes by how far away its row of X is.
        say: told of every step that begins.

    Returns:
        The same on every rank.

    Raises:
        InputError: on every rank, when the topology is for another number of ranks.

    Note: Collective over comm.
    """
    wrong = topology.num_ranks != transport.num_ranks
    transport.agree(InputError(_misfit(topology, transport)) if wrong else None)
    levels = {}
    for number, level in enumerate(topology.levels):
        say(f"timing messages at level {level.name}")
        points = measure_level(transport, topology, number, sizes)
        if points:
            levels[level.name] = fit_link(points)
    on_gpus = measure_gpus(transport, topology, sizes, say)
    say("timing copies")
    copying, _ = _alone_and_together(transport, _copying(transport))
    say("timing products")
    products, crowding = _products(transport, scale)
    nonzero_s, byte_s, row_s, row_byte_s = fit_product(products)
    made = Calibration(
        transport.bcast(platform.node()),
        transport.num_ranks,
        levels,
        _COPIED / copying,
        nonzero_s,
        byte_s,
        crowding,
        datetime.now(UTC).isoformat(timespec="seconds"),
        row_s,
        row_byte_s,
        _ceilings(say) if kernel and transport.rank == 0 else None,
        on_gpus,
    )
    return transport.bcast(made)


def _ceilings(say: Say) -> Ceilings:
    made = Ceilings.measure(num_threads(), say)
    made.save()
    return made


def _products(transport: Transport, scale: int) -> tuple[list[Multiplied], float]:
    """Return products of one rank alone, and how many times longer they take when all ranks multiply."""
    points, crowding = [], []
    for edge_factor in _EDGE_FACTORS:
        matrix = rmat(scale, edge_factor).astype(np.float32)
        for width in _WIDTHS:
            alone, together = _alone_and_together(transport, _multiplying(matrix, width))
            points.append(Multiplied(matrix.nnz, matrix.shape[0], 4 * width, alone))
            crowding.append(together / alone)
    return points, float(np.median(crowding))


def _misfit(topology: Topology, transport: Transport) -> str:
    return f"topology {topology.name} has {topology.num_ranks} ranks, but {transport.num_ranks} are running"


def _copying(transport: Transport) -> Act:
    """Return what gathers rows that lie apart and puts them back, moving `_COPIED` bytes, reads and writes counted."""
    rng = np.random.default_rng(transport.rank)
    rows = np.zeros((_NUM_ROWS, _ROW_BYTES // 4), dtype=np.float32)
    picked = np.sort(rng.choice(_NUM_ROWS, _COPIED // (4 * _ROW_BYTES), replace=False))
    some = np.zeros((picked.size, rows.shape[1]), dtype=np.float32)

    def there_and_back() -> None:
        rows.take(picked, 0, some, "clip")
        rows[picked] = some

    return there_and_back


def _multiplying(matrix: csr_array[Any], width: int) -> Act:
    x = np.ones((matrix.shape[1], width), dtype=np.float32)
    # New memory for every result, as products of a DistMatrix take it: its first touch costs time.
    return lambda: spmm(matrix, x, np.empty((matrix.shape[0], width), dtype=np.float32))


def _alone_and_together(transport: Transport, act: Act) -> tuple[float, float]:
    """Return the time of `act` on rank 0 while the others wait, and that of the slowest rank when all do it."""
    alone, together = _median_s(transport, act, transport.rank == 0), _median_s(transport, act, True)
    return alone, max(alone, together)


def _median_s(transport: Transport, act: Act, active: bool) -> float:
    """Return the median over repetitions of the time of the slowest active rank."""
    times = np.zeros(_TIMES + 1)
    for i in range(times.size):
        transport.barrier()
        begin = time.perf_counter()
        if active:
            act()
            times[i] = time.perf_counter() - begin
    return float(np.median(transport.reduce(times, "max")[1:]))
