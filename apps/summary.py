"""What a plan promises, as the JSON of the command line and the tables of the terminal use it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sparsecomm.collectives.strategies import Candidate
from sparsecomm.cost import imbalance
from sparsecomm.topology import Topology
from sparsecomm.typing import IntGlobal
from sparsecomm.volume import Bounds, Volume

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class MatrixInfo:
    """A matrix as a report names it; `fingerprint` is of its structure in original numbering."""

    name: str
    rows: int
    cols: int
    nnz: int
    fingerprint: str

    def to_json(self) -> Json:
        return {name: getattr(self, name) for name in ("name", "rows", "cols", "nnz", "fingerprint")}


@dataclass(frozen=True, slots=True)
class Loads:
    """Rows and nonzeros of every rank, (num_ranks,) int64."""

    rows: IntGlobal
    nnz: IntGlobal

    def imbalance(self, topology: Topology) -> Json:
        """Return the largest load over the mean load of ranks and of nodes."""
        by_node = np.bincount(topology.rank_to_node, self.nnz, topology.num_nodes)
        return {
            "rows": round(imbalance(self.rows), 6),
            "nnz": round(imbalance(self.nnz), 6),
            "node_nnz": round(imbalance(by_node), 6),
        }


def topology_json(topology: Topology) -> Json:
    return {
        "name": topology.name,
        "ranks": topology.num_ranks,
        "nodes": topology.num_nodes,
        "levels": topology.level_names,
    }


def candidate_json(candidate: Candidate, topology: Topology, width: int, itemsize: int) -> Json:
    """Return what one strategy would move and how long that should take."""
    volume, names = candidate.volume, topology.level_names

    def per_level(values: IntGlobal) -> Json:
        return {name: int(value) for name, value in zip(names, values, strict=True)}

    return {
        "rows": per_level(volume.rows),
        "messages": per_level(volume.messages),
        "bytes": per_level(volume.rows * width * itemsize),
        "max_rank_rows": per_level(volume.max_rank_rows),
        "max_node_rows": {"in": int(volume.max_group_in[-1]), "out": int(volume.max_group_out[-1])},
        "phases": max(1, len(volume.phases)),
        "max_rank_bytes": volume.max_rank_buffer * width * itemsize,
        "predicted_s": candidate.estimate.total_s,
        "predicted_parts_s": candidate.estimate.parts(names),
        "limit": candidate.estimate.limit(names),
    }


def gap_json(volume: Volume, bounds: Bounds) -> Json:
    """Return by how many per cent a volume exceeds the lower bounds; null where a bound is 0 and the volume is not."""
    busiest = max(int(volume.max_group_in[-1]), int(volume.max_group_out[-1]))
    return {
        "network": _gap(int(volume.rows[-1]), bounds.network),
        "busiest_node": _gap(busiest, bounds.busiest_node),
    }


def _gap(rows: int, bound: int) -> float | None:
    if bound == 0:
        return None if rows else 0.0
    return round(100 * (rows / bound - 1), 3)


def plan_json(
    matrix: MatrixInfo,
    topology: Topology,
    partition: Json,
    width: int,
    dtype: npt.DTypeLike,
    found: dict[str, Candidate],
    late: dict[str, str],
    chosen: str,
    bounds: Bounds,
) -> Json:
    """Return the part of the JSON contract that `plan` and `spmm` share.

    Args:
        matrix, topology, partition, width, dtype: what was planned for.
        found: the strategies that were counted.
        late: why the others were not.
        chosen: the name of the chosen one.
        bounds: what no schedule can be spared.
    """
    itemsize = np.dtype(dtype).itemsize
    return {
        "matrix": matrix.to_json(),
        "topology": topology_json(topology),
        "partition": partition,
        "width": width,
        "dtype": np.dtype(dtype).name,
        "strategies": {
            name: candidate_json(c, topology, width, itemsize) | {"gap_percent": gap_json(c.volume, bounds)}
            for name, c in found.items()
        }
        | dict.fromkeys(late),
        "not_counted": late,
        "chosen": chosen,
        "two_party_minimum": {"network": bounds.two_party_minimum},
        "lower_bound": {"network": bounds.network, "busiest_node": bounds.busiest_node},
    }
