"""Machines with published figures, topologies as TOML and as graphs."""

from __future__ import annotations

from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsecomm.errors import InputError
from sparsecomm.presets import MACHINES
from sparsecomm.topology import CORE, MAX_RANKS, Device, Level, Topology

# Gigabytes per second of one port and direction, and ports, from the sites' own pages; see docs/topology.md.
PUBLISHED = {
    "summit": (6, {"socket": (50, 2), "node": (32, 1), "network": (12.5, 2)}),
    "frontier": (8, {"package": (200, 1), "node": (50, 2), "network": (25, 4)}),
    "perlmutter": (4, {"node": (100, 3), "network": (25, 4)}),
    "dgx-h100": (8, {"node": (450, 1), "network": (50, 8)}),
    "dgx-1": (8, {"node": (15.75, 1), "network": (12.5, 4)}),
}
MEMORY = {"summit": 900, "frontier": 1600, "perlmutter": 1555, "dgx-h100": 3350, "dgx-1": 900}


@pytest.mark.parametrize("kind", PUBLISHED)
def test_published_figures(kind: str) -> None:
    ranks, figures = PUBLISHED[kind]
    topology = Topology.parse(f"{kind}:3")
    assert (topology.name, topology.num_ranks, topology.num_nodes) == (f"{kind}:3", 3 * ranks, 3)
    assert {level.name: (level.bandwidth_Bps / 1e9, level.ports) for level in topology.levels} == figures
    assert [level.load_store for level in topology.levels] == [True] * (len(figures) - 1) + [False]
    assert topology.device.memory_Bps / 1e9 == MEMORY[kind]
    latencies = [level.latency_s for level in topology.levels]
    assert latencies == sorted(latencies)


def test_every_machine_is_held_against_its_figures() -> None:
    assert PUBLISHED.keys() == MACHINES.keys()


def test_two_dies_of_frontier_share_a_package() -> None:
    topology = Topology.parse("frontier:2")
    assert topology.group_of(0).tolist() == [rank // 2 for rank in range(16)]
    assert topology.rank_to_node.tolist() == [0] * 8 + [1] * 8


@pytest.mark.parametrize("kind", PUBLISHED)
@pytest.mark.parametrize("number", ["", "0", "-1", "x", "1.5", str(MAX_RANKS)])
def test_machines_refuse_unusable_sizes(kind: str, number: str) -> None:
    with pytest.raises(InputError, match=kind):
        Topology.parse(f"{kind}:{number}")


@pytest.mark.parametrize(
    "levels", [("node", "node"), ("rank", "network"), ("node", "rank")], ids=["twice", "inner", "outer"]
)
def test_levels_need_names_of_their_own(levels: tuple[str, str]) -> None:
    with pytest.raises(InputError, match="names of their own"):
        Topology("t", tuple(Level(name, 1e-6, 1e9) for name in levels), np.zeros((2, 2), dtype=np.int32))


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    """Trees of up to four levels with uneven groups, ranks in any order, names that need quoting, odd costs."""
    num_levels, num_ranks = draw(st.integers(2, 4)), draw(st.integers(1, 12))
    rows = [np.zeros(num_ranks, dtype=np.int64)]
    for _ in range(num_levels - 1):
        split = np.array(draw(st.lists(st.integers(0, 2), min_size=num_ranks, max_size=num_ranks)))
        rows.append(rows[-1] * 3 + split)
    text = st.text(st.characters(exclude_categories=["Cs"]))
    names = draw(
        st.lists(text.filter(lambda name: name != "rank"), min_size=num_levels, max_size=num_levels, unique=True)
    )
    levels = tuple(
        Level(
            name,
            draw(st.floats(0, 1)),
            draw(st.floats(1, 1e15)),
            ports=draw(st.integers(1, 99)),
            load_store=draw(st.booleans()),
            direct_Bps=draw(st.floats(0, 1e15)),
        )
        for name in names
    )
    device = Device(draw(text), draw(st.floats(1, 1e15)), draw(st.floats(0, 1)), draw(st.floats(0, 1e15)))
    return Topology(draw(text), levels, np.stack(rows[::-1]), draw(st.sampled_from([CORE, device])))


def same(a: Topology, b: Topology) -> bool:
    """Compare names, costs, and which ranks are together, whatever number a group has."""
    return (
        (a.name, a.levels, a.device) == (b.name, b.levels, b.device)
        and a.num_ranks == b.num_ranks
        and all(
            np.array_equal(x[:, None] == x[None, :], y[:, None] == y[None, :])
            for x, y in zip(a.groups, b.groups, strict=True)
        )
    )


@given(topology=topologies())
def test_toml_there_and_back(topology: Topology, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("toml") / "t.toml"
    file.write_text(topology.to_toml(), encoding="utf-8", newline="")
    assert same(Topology.parse(str(file)), topology)


@pytest.mark.parametrize("spec", [*(f"{kind}:2" for kind in MACHINES), "nodes:3,3,1", "uniform:1x1"])
def test_toml_of_a_machine_counts_ranks(spec: str, tmp_path: Path) -> None:
    topology = Topology.parse(spec)
    (tmp_path / "t.toml").write_text(topology.to_toml())
    assert "tree = [" in topology.to_toml()
    assert same(Topology.parse(str(tmp_path / "t.toml")), topology)


@pytest.mark.parametrize(
    "groups",
    ["[[0, 1.5]]", "[[0], [0, 1]]", "[0, 1]", "7", "[['a']]", "[[true, false]]", f"[[{2**64}, 1]]", "[]", "[[]]"],
)
def test_toml_with_unusable_groups(groups: str, tmp_path: Path) -> None:
    levels = "".join(
        f"[[levels]]\nname = '{name}'\nlatency_s = 0\nbandwidth_Bps = 1e9\n" for name in ("node", "network")
    )
    (tmp_path / "t.toml").write_text(f"groups = {groups}\n{levels}")
    with pytest.raises(InputError):
        Topology.parse(str(tmp_path / "t.toml"))


def test_toml_with_tree_and_groups(tmp_path: Path) -> None:
    text = Topology.parse("nodes:2,1").to_toml()
    (tmp_path / "t.toml").write_text("groups = [[0, 0, 1]]\n" + text)
    with pytest.raises(InputError, match="not both"):
        Topology.parse(str(tmp_path / "t.toml"))


@pytest.mark.parametrize("spec", ["summit:2", "nodes:3,3,1", "uniform:1x1", "frontier:1"])
def test_networkx_is_the_tree(spec: str) -> None:
    topology = Topology.parse(spec)
    graph = topology.to_networkx()
    assert nx.is_arborescence(graph)
    assert len(graph) == topology.num_ranks + sum(map(topology.num_groups, range(topology.num_levels)))
    for rank in range(topology.num_ranks):
        chain = [("rank", rank)]
        while chain[-1] != ("network", 0):
            chain += graph.predecessors(chain[-1])
        expected = [(level.name, topology.group_of(i)[rank]) for i, level in enumerate(topology.levels)]
        assert chain[1:] == expected
    assert graph.nodes["network", 0]["bandwidth_Bps"] == topology.levels[-1].bandwidth_Bps
    assert graph.graph["name"] == spec


def test_links_of_a_dgx_1() -> None:
    """Six NVLinks a GPU; a cube with both diagonals of two faces: no two GPUs are more than two links apart."""
    graph = Topology.parse("dgx-1:2").to_networkx()
    ranks = graph.subgraph([("rank", rank) for rank in range(16)])
    for node in (range(8), range(8, 16)):
        mesh = ranks.subgraph([("rank", rank) for rank in node])
        assert {sum(data["bandwidth_Bps"] for *_, data in mesh.out_edges(rank, data=True)) for rank in mesh} == {150e9}
        assert {degree for _, degree in mesh.out_degree} == {4}
        assert nx.diameter(mesh) == 2
        for one, other, data in mesh.edges(data=True):
            assert mesh.edges[other, one] == data
    assert ranks.number_of_edges() == 2 * 32


def test_links_of_a_file(tmp_path: Path) -> None:
    topology = Topology.parse("uniform:2x2").with_links([(0, 1, 25e9), (3, 2, 50e9)])
    (tmp_path / "linked.toml").write_text(topology.to_toml())
    for again in (Topology.parse(str(tmp_path / "linked.toml")), Topology.from_dict(topology.to_dict())):
        assert again.links.tolist() == [[0, 1], [3, 2]]
        assert again.link_Bps.tolist() == [25e9, 50e9]
    assert "links" not in Topology.parse("uniform:2x2").to_dict()


@pytest.mark.parametrize(
    ("links", "words"),
    [
        ([(0, 4, 1e9)], "link 0 - 4"),
        ([(-1, 2, 1e9)], "link -1 - 2"),
        ([(1, 1, 1e9)], "link 1 - 1"),
        ([(0, 1, 1e9), (1, 0, 1e9)], "twice"),
        ([(0, 1, float("nan"))], "bytes per second"),
        ([(0, 1, 0.0)], "bytes per second"),
        ([(0.5, 1, 1e9)], "whole numbers"),
        ([(0, 1)], "a link is"),
    ],
)
def test_links_that_cannot_be(links: list[tuple[int, int, float]], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Topology.parse("uniform:2x2").with_links(links)
