"""The ranks of `peers.py`: ours and the others, each in turn in every round."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from _bootstrap import median_interval
from _by_hand import NeededRows, Neighbours, WholeX
from _spmm_job import mpi_library

from sparsecomm.apps.job import Share, bring
from sparsecomm.apps.matrix import DistMatrix
from sparsecomm.apps.redistributed import RedistributedMatrix
from sparsecomm.apps.row_planner import RowPlanner, plan_rows
from sparsecomm.apps.spmm import TOLERANCE, max_error
from sparsecomm.calibration import Calibration
from sparsecomm.collectives.strategies import choose
from sparsecomm.collectives.transport.mpi import MpiTransport
from sparsecomm.collectives.transport.open import detect_topology
from sparsecomm.launch.cluster.names import parse_bandwidth
from sparsecomm.topology import Topology

Json = dict[str, Any]
Dense = npt.NDArray[Any]

PEERS: Final = {"alltoallv": NeededRows, "neighbours": Neighbours, "allgatherv": WholeX}
WARM_UPS: Final = 2


@dataclass(frozen=True, slots=True, eq=False)
class Alternative:
    """One way to get this rank's rows of A @ X.

    Args:
        x: this rank's rows of X, to be filled in place.
        move: brings what the product needs and nothing more.
        multiply: the whole product.
        moved: (2, 2) rows of one product into and out of this rank, at the node and at the network level.
        copied: bytes that one product copies inside this rank, other than for the network.
    """

    x: Dense
    move: Callable[[], object]
    multiply: Callable[[], Dense]
    moved: npt.NDArray[np.int64]
    copied: int = 0


def run(args: argparse.Namespace) -> None:
    """Measure every matrix and write the results; collective over the job."""
    if args.what == "multiply":
        import sparsecomm.kernels.loops  # noqa: F401  # as every program has them that multiplies for a second

    with MpiTransport() as transport:
        topology = detect_topology(transport)
        cases = [
            _measure(args, ours, peers, topology, transport)
            for ours, peers in zip(args.folders[::2], args.folders[1::2], strict=True)
        ]
        if transport.rank == 0:
            facts = {"mpi": mpi_library(), "ranks": str(transport.num_ranks)}
            args.results.write_text(json.dumps({"facts": facts, "cases": cases}))


def _measure(args: argparse.Namespace, ours: str, peers: str, topology: Topology, transport: MpiTransport) -> Json:
    with ExitStack() as stack:
        share, theirs = bring(ours, topology, transport), bring(peers, topology, transport)
        chosen, least = _choose(share, topology, args, transport)
        near = transport.duplicate(topology.num_load_store)
        stack.callback(near.close)
        made = {}
        for name in args.ours:
            base = name.removesuffix("/shared")
            strategy = chosen if base == "auto" else "direct" if base == "shared" else base
            way = near if name.endswith("shared") else transport
            made[name] = _ours(share, strategy, topology, way, args.width, stack)
        offsets = theirs.layouts.cols.offsets
        hands = {name: PEERS[name](theirs.rows, offsets, transport.comm, args.width) for name in args.peers}
        others = {name: _peer(hand, topology, transport) for name, hand in hands.items()}
        error = max(_check(share, made, args.width, transport), _check(theirs, others, args.width, transport))
        made |= others
        times = _times({n: getattr(a, args.what) for n, a in made.items()}, args.rounds, transport)
    row_bytes = args.width * share.rows.dtype.itemsize
    rate = parse_bandwidth(args.bandwidth) / 8
    alternatives = {}
    for name, one in made.items():
        rows, busiest = _volume(one.moved, topology, transport)
        alternatives[name] = {
            "seconds": _quartiles(times[name]),
            "faster": _quartiles(times[args.against] / times[name]),
            "rows": rows,
            "busiest": busiest,
            "copied": int(transport.reduce(np.array([one.copied]), "sum")[0]),
            "wire_s": max(0.0, busiest * row_bytes / rate - 1 / 250),
        }
    return {
        "matrix": Path(share.info.name).name,
        "partitions": [share.method, theirs.method],
        "chosen": chosen,
        "least_rows": least,
        "max_error": error,
        "auto_over_direct": _paired(times),
        "alternatives": alternatives,
    }


def _choose(share: Share, topology: Topology, args: argparse.Namespace, transport: MpiTransport) -> tuple[str, int]:
    """Return what `auto` takes by what was measured here, and the rows into or out of the cover's busiest node."""
    planner = RowPlanner(share.rows, share.layouts, topology, transport)
    model = Calibration.load(args.calibration).model(topology)
    found = planner.candidates("auto", model, args.width, share.rows.dtype.itemsize)
    cover = found["cover"].volume
    return choose(found).name, int(max(cover.max_group_in[-1], cover.max_group_out[-1]))


def _ours(
    share: Share, strategy: str, topology: Topology, transport: MpiTransport, width: int, stack: ExitStack
) -> Alternative:
    if strategy == "redistribute":
        return _redistributed(share, topology, transport, width, stack)
    product = plan_rows(share.rows, share.layouts, topology, transport, strategy=strategy, width=width)
    matrix = stack.enter_context(DistMatrix(share.rows, product, topology, transport))
    x = matrix.empty(width)
    x[...] = 0
    _ = matrix @ x
    done = matrix.executed
    dtype, plans = share.rows.dtype, [plan for plan in ("gather", "scatter") if getattr(product, plan).stages]
    exchanges = {plan: matrix.exchange(plan, width, dtype) for plan in plans}

    def move() -> None:
        gather, scatter = exchanges.get("gather"), exchanges.get("scatter")
        back = scatter.start_reverse(scatter.partials_buffer()) if scatter else None
        fetch = gather.start(x, in_place=True) if gather else None
        if fetch:
            fetch.wait(meanwhile=[back] if back else [])
            fetch.release()
        if back:
            back.wait(y)
        if fetch:
            fetch.settle()

    y = np.zeros((product.scatter.num_own, width), dtype=share.rows.dtype)
    moved, copied = np.array([done.rows_received, done.rows_sent]), int(done.bytes_copied[0])
    return Alternative(x, move, lambda: matrix @ x, moved, copied)


def _redistributed(
    share: Share, topology: Topology, transport: MpiTransport, width: int, stack: ExitStack
) -> Alternative:
    matrix = stack.enter_context(RedistributedMatrix(share.rows, share.layouts, topology, transport))
    x = np.zeros((len(share.layouts.cols.own_rows(transport.rank)), width), dtype=share.rows.dtype)
    _ = matrix @ x
    pieces = np.array([matrix.executed.rows_received, matrix.executed.rows_sent])
    rows = np.round(pieces / topology.num_ranks).astype(np.int64)
    return Alternative(x, lambda: matrix @ x, lambda: matrix @ x, rows)


def _peer(hand: NeededRows | WholeX, topology: Topology, transport: MpiTransport) -> Alternative:
    far = topology.rank_to_node != topology.rank_to_node[transport.rank]
    moved = [[int(rows[~far].sum()), int(rows[far].sum())] for rows in (hand.peers_rows, hand.rows_sent)]
    return Alternative(hand.empty(), hand.move, hand.multiply, np.array(moved))


def _check(share: Share, made: dict[str, Alternative], width: int, transport: MpiTransport) -> float:
    """Return the largest error of a product, against all of X; every rank fails if it is more than rounding.

    Note: Collective over comm.
    """
    own = share.layouts.cols.own_rows(transport.rank)
    shape = (share.layouts.cols.num_rows, width)
    x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32).astype(share.rows.dtype, copy=False)
    worst = 0.0
    for one in made.values():
        one.x[...] = x[own.start : own.stop]
        worst = max(worst, max_error(share.rows, x, one.multiply()))
    worst = float(transport.reduce(np.array([worst]), "max")[0])
    assert worst <= TOLERANCE[share.rows.dtype.itemsize], f"an alternative is wrong by {worst:.1e}"
    return worst


def _times(
    acts: dict[str, Callable[[], object]], rounds: int, transport: MpiTransport
) -> dict[str, npt.NDArray[np.float64]]:
    """Return the seconds of the slowest rank in every round; nobody always comes after the same other one.

    Note: Collective over comm.
    """
    names, rng = list(acts), np.random.default_rng(0)  # the same on all ranks
    turns = [rng.permutation(names).tolist() for _ in range(WARM_UPS + rounds)]
    mine = [dict(zip(turn, _round([acts[name] for name in turn], transport), strict=True)) for turn in turns]
    table = np.array([[seconds[name] for name in names] for seconds in mine])[WARM_UPS:]
    return dict(zip(names, transport.reduce(table, "max").T, strict=True))


def _round(acts: Sequence[Callable[[], object]], transport: MpiTransport) -> Iterator[float]:
    for act in acts:
        transport.barrier()
        time.sleep(0.01)  # the links' bursts fill again, for every alternative alike
        transport.barrier()
        begin = time.perf_counter()
        act()
        yield time.perf_counter() - begin


def _paired(times: dict[str, npt.NDArray[np.float64]]) -> tuple[float, float, float] | None:
    both = {"auto", "direct"} <= set(times)
    return median_interval(times["auto"] / times["direct"]) if both else None


def _volume(moved: npt.NDArray[np.int64], topology: Topology, transport: MpiTransport) -> tuple[list[int], int]:
    """Return the rows of all ranks at each level, and those into or out of the busiest node.

    Note: Collective over comm.
    """
    by_node = np.zeros((2, topology.num_nodes), dtype=np.int64)
    by_node[:, topology.rank_to_node[transport.rank]] = moved[:, 1]
    return transport.reduce(moved[0], "sum").tolist(), int(transport.reduce(by_node, "sum").max())


def _quartiles(values: npt.NDArray[np.float64]) -> list[float]:
    return [float(value) for value in np.quantile(values, [0.25, 0.5, 0.75])]
