"""The ranks of `model.py`: every matrix, strategy and width, predicted with a calibration and measured."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from sparsecomm.apps.job import bring
from sparsecomm.apps.matrix import DistMatrix
from sparsecomm.apps.row_planner import RowPlanner
from sparsecomm.calibration import Calibration
from sparsecomm.collectives.strategy import get_strategy
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.collectives.transport.open import detect_topology, open_transport

Json = dict[str, Any]

WARM_UPS: Final = 2
REPEATS: Final = 9


def main() -> None:
    folder, matrices, strategies, widths = Path(sys.argv[1]), *(word.split(",") for word in sys.argv[2:5])
    with open_transport() as transport:
        cases = list(measure(folder, matrices, strategies, [int(width) for width in widths], transport))
        if transport.rank == 0:
            (folder / "cases.json").write_text(json.dumps(cases))


def measure(
    folder: Path, matrices: Sequence[str], strategies: Sequence[str], widths: Sequence[int], transport: Transport
) -> Iterator[Json]:
    """Yield every case, the same on every rank.

    Note: Collective over comm.
    """
    topology = detect_topology(transport)
    model = Calibration.load(folder / "calibration.json").model(topology)
    for matrix in matrices:
        share = bring(matrix, topology, transport)
        planner = RowPlanner(share.rows, share.layouts, topology, transport)
        found = {width: planner.candidates("auto", model, width, 4) for width in widths}
        for name in strategies:
            with DistMatrix(share.rows, planner.product(get_strategy(name)), topology, transport) as operator:
                for width in widths:
                    estimate = found[width][name].estimate
                    yield {
                        "matrix": Path(matrix).name,
                        "strategy": name,
                        "width": width,
                        "predicted_s": estimate.total_s,
                        "parts_s": estimate.parts(topology.level_names),
                        "limit": estimate.limit(topology.level_names),
                        "measured_s": _median_s(operator, width, transport),
                    }


def _median_s(operator: DistMatrix, width: int, transport: Transport) -> float:
    """Return the median time of a product, the slowest rank counting."""
    x = operator.empty(width, np.float32)
    x[...] = 1
    times = np.zeros(WARM_UPS + REPEATS)
    for i in range(times.size):
        transport.barrier()
        begin = time.perf_counter()
        operator @ x
        times[i] = time.perf_counter() - begin
    return float(np.median(transport.reduce(times, "max")[WARM_UPS:]))


if __name__ == "__main__":
    main()
