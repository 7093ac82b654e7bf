"""The ranks of `spmm.py`: one partitioned matrix after the other, every alternative in turn in each repetition."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mpi4py import MPI

import numpy as np
import numpy.typing as npt
from _by_hand import NeededRows, WholeX

from sparsecomm.apps.job import Share, bring
from sparsecomm.apps.matrix import DistMatrix
from sparsecomm.apps.row_planner import plan_rows
from sparsecomm.apps.spmm import TOLERANCE, max_error
from sparsecomm.collectives.strategies import candidates, choose
from sparsecomm.collectives.transport.mpi import MpiTransport
from sparsecomm.pattern import Remote
from sparsecomm.topology import Topology

Dense = npt.NDArray[Any]
Json = dict[str, Any]

OURS: Final = ("direct", "hierarchical", "reduce")
SHARED: Final = "shared"  # `direct`, rows inside a node read where they lie
BY_HAND: Final = ("alltoallv", "allgatherv")
WARM_UPS: Final = 2
MIN_REPEATS: Final = 7
MAX_REPEATS: Final = 51


@dataclass(frozen=True, slots=True, eq=False)
class Alternative:
    """One way to compute this rank's rows of A @ X.

    Args:
        x: (num_own, width), memory that `multiply` reads in place.
        multiply: returns the rows.
        moved: rows that come to this rank in one product, from ranks of its own node and of others.
    """

    x: Dense
    multiply: Callable[[], Dense]
    moved: npt.NDArray[np.int64]


def measure(
    folders: Sequence[str], widths: Sequence[int], topology: Topology, seconds: float, transport: MpiTransport
) -> Iterator[Json]:
    """Yield the report of every partitioned matrix at every width, the same on every rank.

    Args:
        folders: partition directories for the ranks of the job.
        widths: columns of X.
        topology: what the ranks plan for.
        seconds: what the repetitions of one report should take in all.

    Note: Collective over comm.
    """
    for folder in folders:
        share = bring(folder, topology, transport)
        products = {name: plan_rows(share.rows, share.layouts, topology, transport, strategy=name) for name in OURS}
        for width in widths:
            with ExitStack() as stack:
                near = transport.duplicate(topology.num_load_store)
                stack.callback(near.close)
                over = {name: (product, transport) for name, product in products.items()}
                over[SHARED] = (products["direct"], near)
                made = {
                    name: stack.enter_context(DistMatrix(share.rows, product, topology, way))
                    for name, (product, way) in over.items()
                }
                case = {"matrix": share.info.name, "partition": share.method, "width": width, "nnz": share.info.nnz}
                yield case | _compare(share, made, width, topology, seconds, transport) | {"folder": Path(folder).name}


def _compare(
    share: Share, ours: dict[str, DistMatrix], width: int, topology: Topology, seconds: float, transport: MpiTransport
) -> Json:
    alternatives = _alternatives(share, ours, width, topology, transport)
    x = np.random.default_rng([width, transport.rank]).standard_normal(alternatives["direct"].x.shape)
    for alternative in alternatives.values():
        alternative.x[...] = x
    error = _worst_error(share, alternatives, transport)
    times = _times(alternatives, seconds, transport)
    moved = {name: transport.reduce(one.moved, "sum") for name, one in alternatives.items()}
    return {
        "chosen": _chosen(share, topology, width, transport),
        "max_error": error,
        "repeats": times["direct"].size,
        "rows": {name: {"all": int(rows.sum()), "network": int(rows[1])} for name, rows in moved.items()},
        "seconds": {name: _quartiles(all_times) for name, all_times in times.items()},
        "ratio": {
            name: {hand: _quartiles(times[name] / times[hand]) for hand in BY_HAND}
            for name in (*OURS, SHARED, "allgatherv")
        },
    }


def _alternatives(
    share: Share, ours: dict[str, DistMatrix], width: int, topology: Topology, transport: MpiTransport
) -> dict[str, Alternative]:
    """Return every alternative by its name, in the order in which they take turns.

    Note: Collective over comm.
    """
    made = {name: _of_matrix(matrix, width, topology) for name, matrix in ours.items()}
    offsets, node = share.layouts.cols.offsets, topology.rank_to_node
    for name, kind in zip(BY_HAND, (NeededRows, WholeX), strict=True):
        hand = kind(share.rows, offsets, transport.comm, width)
        far = int(hand.peers_rows[node != node[transport.rank]].sum())
        made[name] = Alternative(hand.empty(), hand.multiply, np.array([hand.peers_rows.sum() - far, far]))
    return made


def _of_matrix(matrix: DistMatrix, width: int, topology: Topology) -> Alternative:
    x = matrix.empty(width)
    x[...] = 0
    _ = matrix @ x  # makes the exchanges and counts the rows of one product
    rows = matrix.executed.rows_received
    return Alternative(x, lambda: matrix @ x, np.array([rows[:-1].sum(), rows[-1]]))


def _worst_error(share: Share, alternatives: dict[str, Alternative], transport: MpiTransport) -> float:
    """Return the largest error of any alternative on any rank, relative to |A||X|; see `max_error`.

    Raises:
        AssertionError: on every rank, when it is larger than rounding explains.

    Note: Collective over comm.
    """
    results = {name: alternative.multiply() for name, alternative in alternatives.items()}
    whole: WholeX = alternatives["allgatherv"].multiply.__self__  # type: ignore[attr-defined]
    worst = max(max_error(share.rows, whole.whole(), y) for y in results.values())
    worst = float(transport.reduce(np.array([worst]), "max")[0])
    assert worst <= TOLERANCE[share.rows.dtype.itemsize], f"an alternative is wrong by {worst:.1e}"
    return worst


def _times(
    alternatives: dict[str, Alternative], seconds: float, transport: MpiTransport
) -> dict[str, npt.NDArray[np.float64]]:
    """Return for each alternative the seconds of its slowest rank in every repetition.

    Note: Collective over comm.
    """
    for _ in range(WARM_UPS):
        warm = _one_round(alternatives, transport)
    round_s = float(transport.reduce(np.array([sum(warm)]), "max")[0])
    repeats = int(np.clip(seconds / round_s, MIN_REPEATS, MAX_REPEATS))
    mine = np.array([_one_round(alternatives, transport) for _ in range(repeats)])
    return dict(zip(alternatives, transport.reduce(mine, "max").T, strict=True))


def _one_round(alternatives: dict[str, Alternative], transport: MpiTransport) -> list[float]:
    times = []
    for alternative in alternatives.values():
        transport.barrier()
        begin = time.perf_counter()
        alternative.multiply()
        times.append(time.perf_counter() - begin)
    return times


def _chosen(share: Share, topology: Topology, width: int, transport: MpiTransport) -> str:
    remote = Remote.of(share.rows, share.layouts, transport.held)
    busiest = int(transport.reduce(np.array([share.rows.nnz], dtype=np.int64), "max")[0])
    return choose(candidates(remote, topology, width=width, max_rank_nnz=busiest, router=transport)).name


def _quartiles(values: npt.NDArray[np.float64]) -> list[float]:
    return [float(value) for value in np.quantile(values, [0.25, 0.5, 0.75])]


def mpi_library() -> str:
    """Return the first line of what the MPI library says of itself."""
    return MPI.Get_library_version().split("\n")[0].split("\x00")[0].strip()
