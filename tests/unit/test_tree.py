"""Trees over the physical links: what they occupy, what they bring, and that they end jobs with words."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from scipy.sparse import csr_array

from sparsecomm.apps.planning import plan_source
from sparsecomm.apps.source import load_source
from sparsecomm.apps.spmm import SpmmOptions, run_spmm
from sparsecomm.collectives.links import MAX_RANKS, Links
from sparsecomm.collectives.strategies import candidates, make_product, passed_over
from sparsecomm.collectives.strategy import get_strategy
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.collectives.transport.local import run_local
from sparsecomm.collectives.tree import MAX_DEPTH
from sparsecomm.errors import InputError
from sparsecomm.io.matrix import read_matrix
from sparsecomm.layout import Layout, Layouts
from sparsecomm.pattern import Remote
from sparsecomm.table import Offline
from sparsecomm.topology import Topology
from tests.planning_oracles import MACHINES, Case, col_needs, owner_list, plan_copies, random_case

CASES = [random_case(seed, tree) for seed, tree in enumerate([*MACHINES.values()] * 2, start=70)]
ROW_BYTES = 256


def _remote(topology: Topology, spec: str = "rmat:9:6") -> Remote:
    matrix = read_matrix(spec)
    layout = Layout.block(matrix.shape[0], topology.num_ranks)
    return Remote.of(matrix, Layouts(layout, layout))


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_every_row_grows_a_tree(case: Case) -> None:
    """From its owner, over its users and such as lead to them, no deeper than allowed; counted as it is built."""
    remote, topology = Remote.of(case.matrix, case.layouts), case.machine.topology
    product = get_strategy("tree").build(remote, topology)
    product.verify(remote)
    assert product.volume() == get_strategy("tree").count(remote, topology)
    assert product.multiplier.tolist() == remote.nonzeros.rank.tolist()
    owners, needs = owner_list(case.layouts.cols), col_needs(case)
    trees: dict[int, nx.DiGraph] = {row: nx.DiGraph() for row in needs}
    for copy in (copy for stage in plan_copies(product.gather) for copy in stage):
        trees[copy.row].add_edge(copy.src, copy.dst)
    for row, tree in trees.items():
        assert nx.is_arborescence(tree)
        assert {rank for rank, degree in tree.out_degree if degree == 0} <= needs[row] <= set(tree) - {owners[row]}
        depths = nx.shortest_path_length(tree, owners[row])
        assert max(depths.values()) <= MAX_DEPTH


def _paths(topology: Topology, src: int, dst: int) -> Counter[float]:
    links = Links.of(topology)
    return Counter(links.Bps[link] for link in links.path[src, dst] if link >= 0)


def test_links_of_a_copy() -> None:
    """On Summit: ports of two GPUs of a socket, the X-Bus, or two rails; on a DGX-1 NVLink where there is."""
    summit = Topology.parse("summit:2")
    assert _paths(summit, 0, 1) == Counter({50e9: 1, 100e9: 2})
    assert _paths(summit, 0, 3) == Counter({32e9: 4})
    assert _paths(summit, 0, 6) == Counter({12.5e9: 2, 25e9: 2})
    dgx = Topology.parse("dgx-1:2")
    assert _paths(dgx, 0, 1) == _paths(dgx, 8, 9) == Counter({25e9: 1})
    assert _paths(dgx, 3, 0) == Counter({50e9: 1})
    assert _paths(dgx, 0, 5) == Counter({15.75e9: 3})
    assert _paths(dgx, 0, 13) == Counter({12.5e9: 2, 50e9: 2})
    path = Links.of(summit).path
    shared = set(path[0, 3].tolist()) & set(path[1, 4].tolist()) - {-1}
    assert len(shared) == 2  # both sockets' ends of the X-Bus
    assert not set(path[0, 3].tolist()) & set(path[3, 0].tolist()) - {-1}  # it works both ways at once


def test_seconds_by_hand() -> None:
    """Three GPUs in a line, the ends of it without a link: 100 rows from 0 to both others."""
    line = Topology.parse("uniform:1x3").with_links([(0, 1, 60e9), (1, 2, 60e9)])
    matrix = csr_array((np.ones(200), (np.arange(200) + 100, np.tile(np.arange(100), 2))), shape=(300, 300))
    remote, links = Remote.of(matrix, Layouts(Layout.block(300, 3), Layout.block(300, 3))), Links.of(line)
    direct = get_strategy("direct").build(remote, line).gather
    assert links.seconds(direct, 8) == pytest.approx(100 * 8 / 50e9)  # by the ports of the node, links on the side
    chain = Topology.parse("uniform:1x3").with_links([(0, 1, 500e9), (1, 2, 500e9)])
    passed_on = get_strategy("tree").build(remote, chain).gather
    assert {(copy.src, copy.dst) for stage in plan_copies(passed_on) for copy in stage} == {(0, 1), (1, 2)}
    assert Links.of(chain).seconds(passed_on, 8) == pytest.approx(2 * 100 * 8 / 500e9)


@pytest.mark.parametrize("spec", ["dgx-1:1", "dgx-1:2", "summit:1", "summit:2"])
def test_links_are_busy_for_less_time(spec: str) -> None:
    """Than with rows that go straight, or through hubs that know nothing of the links."""
    topology = Topology.parse(spec)
    remote, links = _remote(topology, "rmat:11:16"), Links.of(topology)
    seconds = {
        name: links.seconds(get_strategy(name).build(remote, topology).gather, ROW_BYTES)
        for name in ("tree", "direct", "hierarchical")
    }
    assert seconds["tree"] < min(seconds["direct"], seconds["hierarchical"])


def test_a_job_is_told_to_plan_offline() -> None:
    topology = Topology.parse("summit:1")
    whole = _remote(topology)
    assert "tree" in candidates(whole, topology)
    matrix = read_matrix("rmat:9:6")

    def body(transport: Transport) -> None:
        own = whole.layouts.rows.own_rows(transport.rank)
        mine = Remote.of(matrix[own.start : own.stop], whole.layouts, transport.held)
        assert "offline" in passed_over(mine, topology, transport, "tree")["tree"]
        assert "tree" not in candidates(mine, topology, router=transport)
        for make in (get_strategy("tree").count, get_strategy("tree").build_rank):
            with pytest.raises(InputError, match=r"strategy tree: .* offline .* --plan"):
                make(mine, topology, transport)

    run_local(topology.num_ranks, body)


def test_a_ready_plan_runs_in_a_job(tmp_path: Path) -> None:
    topology = Topology.parse("dgx-1:1")
    plan_source(load_source("rmat:9", topology), topology, strategy="tree").save(tmp_path / "plan")
    options = SpmmOptions("rmat:9", width=3, plan=tmp_path / "plan", check=True)
    report = run_local(8, lambda transport: run_spmm(options, topology, transport))[0]
    assert (report["chosen"], report["verified"]) == ("tree", True)
    for noun in ("rows", "messages"):
        assert report["executed"][noun] == report["strategies"]["tree"][noun]


def test_machines_for_trees() -> None:
    """Uncounted, unless asked for, where nodes are all-to-all; refused where there are too many pairs of ranks."""
    flat = Topology.parse("uniform:2x2")
    assert "all-to-all" in passed_over(_remote(flat), flat, Offline(4))["tree"]
    assert "tree" in candidates(_remote(flat), flat, asked="tree")
    many = Topology.parse(f"uniform:{MAX_RANKS + 1}x1")
    with pytest.raises(InputError, match=f"at most {MAX_RANKS}"):
        make_product(_remote(many), many, "tree")
    dense = _remote(Topology.parse("summit:8"), "rmat:13")
    assert "unasked" in passed_over(dense, Topology.parse("summit:8"), Offline(48))["tree"]
