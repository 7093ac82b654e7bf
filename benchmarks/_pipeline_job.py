"""The ranks of `pipeline.py`: products whole, in chunks and one after the other, in turn in every round."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from _results import Json
from _spmm_job import mpi_library

from sparsecomm.apps.job import Share, bring
from sparsecomm.apps.matrix import DistMatrix
from sparsecomm.apps.row_planner import RowPlanner
from sparsecomm.apps.spmm import TOLERANCE, max_error
from sparsecomm.calibration import Calibration
from sparsecomm.collectives.strategies import choose
from sparsecomm.collectives.transport.mpi import MpiTransport
from sparsecomm.collectives.transport.open import detect_topology
from sparsecomm.cost import CostModel
from sparsecomm.product import RankProduct
from sparsecomm.topology import Topology

Dense = npt.NDArray[Any]

WHOLE: Final = "1"
AUTO: Final = "auto"
IN_A_ROW: Final = "in a row"
WARM_UPS: Final = 1


@dataclass(frozen=True, slots=True, eq=False)
class Alternative:
    """One way to make products of this rank's rows.

    Args:
        matrix: that is multiplied with.
        multiply: makes `count` products, and returns the last.
        count: of products.
    """

    matrix: DistMatrix
    multiply: Callable[[], Dense]
    count: int


def run(args: argparse.Namespace) -> None:
    """Measure a matrix at every width and write the results; collective over the job."""
    import sparsecomm.kernels.loops  # noqa: F401  # as every program has them that multiplies for a second

    with MpiTransport() as transport:
        topology = detect_topology(transport)
        model = Calibration.load(args.calibration).model(topology)
        share = bring(args.folder, topology, transport)
        planner = RowPlanner(share.rows, share.layouts, topology, transport)
        counts = planner.counts(args.strategy)
        cases = []
        for width in args.widths:
            found = counts.candidates(model, width, share.rows.dtype.itemsize)
            product = planner.product(choose(found, args.strategy))
            cases.append(_measure(args, share, product, width, model, transport))
        if transport.rank == 0:
            facts = {"mpi": mpi_library(), "ranks": str(transport.num_ranks)}
            args.results.write_text(json.dumps({"facts": facts, "cases": cases}))


def _measure(
    args: argparse.Namespace, share: Share, product: RankProduct, width: int, model: CostModel, transport: MpiTransport
) -> Json:
    topology: Topology = model.topology
    x = _block(share, width, transport.rank)
    with ExitStack() as stack:

        def made(chunks: int | None) -> DistMatrix:
            matrix = DistMatrix(share.rows, product, topology, transport, chunks=chunks, cost=model)
            return stack.enter_context(matrix)

        matrices = {str(chunks): made(chunks) for chunks in args.chunks} | {AUTO: made(None)}
        ways = {name: _alone(matrix, x) for name, matrix in matrices.items()}
        ways[IN_A_ROW] = _in_a_row(made(1), x, args.in_a_row)
        tuning = matrices[AUTO].tuning(width)
        while tuning.kept is None:
            _ = matrices[AUTO] @ x
        error = _check(share, width, ways, transport)
        times, exposed = _times(ways, args.rounds, transport)
    return {
        "matrix": Path(share.info.name).name,
        "width": width,
        "strategy": product.strategy,
        "max_error": error,
        "auto": {"kept": tuning.kept, "tried": tuning.seconds},
        "alternatives": {
            name: {
                "seconds": _quartiles(times[name]),
                "faster": _quartiles(times[WHOLE] / times[name]),
                "exposed": float(exposed[name].sum() / times[name].sum()),
            }
            for name in ways
        },
    }


def _block(share: Share, width: int, rank: int) -> Dense:
    own = share.layouts.cols.own_rows(rank)
    return _whole(share, width)[own.start : own.stop].copy()


def _whole(share: Share, width: int) -> Dense:
    shape = (share.layouts.cols.num_rows, width)
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32).astype(share.rows.dtype, copy=False)


def _alone(matrix: DistMatrix, x: Dense) -> Alternative:
    """Return the products of one X, which lies where the matrix reads it without a copy if it can."""
    place = matrix.empty(x.shape[1], x.dtype)
    place[...] = x
    return Alternative(matrix, lambda: matrix @ place, 1)


def _in_a_row(matrix: DistMatrix, x: Dense, count: int) -> Alternative:
    return Alternative(matrix, lambda: list(matrix.products([x] * count))[-1], count)


def _check(share: Share, width: int, ways: dict[str, Alternative], transport: MpiTransport) -> float:
    """Return the largest error of a product; all ways must give the same bits.

    Raises:
        AssertionError: on every rank, when they do not, or one is wrong.

    Note: Collective over comm.
    """
    found = {name: way.multiply() for name, way in ways.items()}
    wrong = [name for name, y in found.items() if not np.array_equal(y, found[WHOLE])]
    error = max_error(share.rows, _whole(share, width), found[WHOLE])
    worst = transport.reduce(np.array([error, len(wrong)]), "max").tolist()
    assert worst[0] <= TOLERANCE[share.rows.dtype.itemsize], f"the product is wrong by {worst[0]:.1e}"
    assert not worst[1], f"other bits than those of the product made whole: {wrong}"
    return float(worst[0])


def _times(
    ways: dict[str, Alternative], rounds: int, transport: MpiTransport
) -> tuple[dict[str, npt.NDArray[np.float64]], dict[str, npt.NDArray[np.float64]]]:
    """Return, for every round, seconds of a product on the slowest rank, and those exposed in the mean of the ranks.

    Note: Collective over comm.
    """
    names, rng = list(ways), np.random.default_rng(0)  # the same on all ranks
    seconds, waited = np.zeros((2, WARM_UPS + rounds, len(names)))
    for turn in range(WARM_UPS + rounds):
        for number in rng.permutation(len(names)).tolist():
            seconds[turn, number], waited[turn, number] = _timed(ways[names[number]], transport)
    slowest = transport.reduce(seconds[WARM_UPS:], "max").T
    mean = transport.reduce(waited[WARM_UPS:], "sum").T / transport.num_ranks
    return dict(zip(names, slowest, strict=True)), dict(zip(names, mean, strict=True))


def _timed(way: Alternative, transport: MpiTransport) -> tuple[float, float]:
    transport.barrier()
    time.sleep(0.01)  # the links' bursts fill again, for every alternative alike
    transport.barrier()
    waited, begin = way.matrix.waited_s, time.perf_counter()
    way.multiply()
    return (time.perf_counter() - begin) / way.count, (way.matrix.waited_s - waited) / way.count


def _quartiles(values: npt.NDArray[np.float64]) -> list[float]:
    return [float(value) for value in np.quantile(values, [0.25, 0.5, 0.75])]
