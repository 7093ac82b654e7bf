"""What a layout is judged by."""

from __future__ import annotations

from typing import Any

from scipy.sparse import csr_array

from sparsecomm.errors import InputError
from sparsecomm.layout import Layouts
from sparsecomm.partition.metrics import Crossing, Traffic, edge_cut, move_s, predicted_s
from sparsecomm.partition.request import Request
from sparsecomm.topology import Topology

GOALS = ("time", "network", "busiest", "gather", "cut")


def check_goal(request: Request) -> None:
    """Refuse a goal that there is not.

    Raises:
        InputError: with the names there are.
    """
    if isinstance(request.goal, str) and request.goal not in GOALS:
        raise InputError(f"unknown goal {request.goal!r}; give one of {', '.join(GOALS)}, or a function")


def judge(matrix: csr_array[Any], layouts: Layouts, topology: Topology, request: Request) -> float:
    """Return what is to be small: seconds of all products and of getting there, rows, or edges."""
    if not isinstance(request.goal, str):
        return float(request.goal(layouts))
    if request.goal == "time":
        products = request.iterations * predicted_s(matrix, layouts, topology, request)
        return products + move_s(matrix, layouts, topology, request)
    if request.goal == "cut":
        return float(edge_cut(matrix, layouts, topology))
    if request.goal == "gather":
        return float(_network(matrix, layouts, topology, "gather").rows)
    cover = _network(matrix, layouts, topology, "cover")
    return float(cover.rows if request.goal == "network" else cover.busiest)


def _network(matrix: csr_array[Any], layouts: Layouts, topology: Topology, way: str) -> Traffic:
    between = Crossing.of(matrix, layouts).between(topology.rank_to_node)
    return between.traffic(way, topology.num_nodes)
