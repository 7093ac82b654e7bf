"""What every strategy's product shows of itself, against its volume."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from sparsecomm.collectives.strategies import make_product
from sparsecomm.collectives.strategy import strategy_names
from sparsecomm.io.matrix import read_matrix
from sparsecomm.layout import Layout, Layouts
from sparsecomm.pattern import Remote
from sparsecomm.product import Product
from sparsecomm.topology import Topology

EACH = pytest.mark.parametrize("name", strategy_names())


def _product(name: str) -> Product:
    topology = Topology.parse("summit:2")
    layout = Layout.block(256, topology.num_ranks)
    return make_product(Remote.of(read_matrix("rmat:8:6"), Layouts(layout, layout)), topology, name)


@EACH
def test_describe(name: str) -> None:
    """One line for each stage; together the rows and messages of the volume."""
    product = _product(name)
    lines = [line.split() for line in product.describe().splitlines() if line.split()[0] in ("gather", "scatter")]
    volume, levels = product.volume(), product.topology.level_names
    assert len(lines) == len(product.gather.stages) + len(product.scatter.stages)
    for place, counted in ((3, volume.rows), (4, volume.messages)):
        shown = Counter()
        for line in lines:
            shown[line[2]] += int(line[place].replace(",", ""))
        assert [shown[level] for level in levels] == counted.tolist()


@EACH
def test_networkx(name: str) -> None:
    """Rows and messages of every level; busiest rank by the edges that leave and come."""
    product = _product(name)
    graph, volume = product.to_networkx(), product.volume()
    assert dict(graph.nodes(data="node")) == dict(enumerate(product.topology.rank_to_node.tolist()))
    for number, level in enumerate(product.topology.level_names):
        edges = [(src, dst, data["rows"]) for src, dst, data in graph.edges(data=True) if data["level"] == level]
        assert len(edges) == volume.messages[number]
        ends = [Counter(), Counter()]
        for edge in edges:
            for end, tally in zip(edge, ends, strict=False):
                tally[end] += edge[2]
        assert ends[0].total() == volume.rows[number]
        assert max([*ends[0].values(), *ends[1].values()], default=0) == volume.max_rank_rows[number]
    assert {data["plan"] for _, _, data in graph.edges(data=True)} <= {"gather", "scatter"}


@EACH
def test_rows_from_node_to_node(name: str) -> None:
    product = _product(name)
    src, dst, rows = product.node_rows()
    volume, num_nodes = product.volume(), product.topology.num_nodes
    assert (src != dst).all()
    assert rows.sum() == volume.rows[-1]
    for end, busiest in ((dst, volume.max_group_in[-1]), (src, volume.max_group_out[-1])):
        assert np.bincount(end, rows, num_nodes).max() == busiest
