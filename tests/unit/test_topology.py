"""The tree of ranks against plain lists."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sparsecomm.errors import InputError
from sparsecomm.topology import MAX_RANKS, Level, Topology
from tests.planning_oracles import MACHINES, Machine, machine

EVERY = pytest.mark.parametrize("tree", MACHINES.values(), ids=MACHINES)

TREE = """
name = "two racks"
tree = [[2, 1], [3]]
[[levels]]
name = "socket"
latency_s = 1e-6
bandwidth_Bps = 50e9
load_store = true
[[levels]]
name = "node"
latency_s = 2e-6
bandwidth_Bps = 32e9
[[levels]]
name = "network"
latency_s = 5e-6
bandwidth_Bps = 12.5e9
ports = 2
"""


def _same_groups(topology: Topology, tree: Machine) -> bool:
    """Compare which ranks are together, whatever the groups are called."""
    pairs = [(a, b) for a in range(tree.num_ranks) for b in range(tree.num_ranks)]
    return topology.num_ranks == tree.num_ranks and all(
        (topology.group_of(level)[a] == topology.group_of(level)[b]) == (tree.group(level, a) == tree.group(level, b))
        for level in range(-1, tree.num_levels)
        for a, b in pairs
    )


@pytest.mark.parametrize(
    ("spec", "tree", "names"),
    [
        ("uniform:2x3", machine([0, 0, 0, 1, 1, 1]), ["node", "network"]),
        ("uniform:1x1", machine([0]), ["node", "network"]),
        ("nodes:3,3,1", machine([0, 0, 0, 1, 1, 1, 2]), ["node", "network"]),
        ("nodes:1", machine([0]), ["node", "network"]),
        ("summit:2", MACHINES["summit"], ["socket", "node", "network"]),
    ],
)
def test_parse(spec: str, tree: Machine, names: list[str]) -> None:
    topology = Topology.parse(spec)
    assert topology.name == spec
    assert topology.level_names == names
    assert topology.num_levels == len(names)
    assert topology.num_nodes == len(set(tree.groups[-1]))
    assert _same_groups(topology, tree)


def test_a_name_or_a_topology() -> None:
    made = Topology.parse("uniform:2x2")
    assert Topology.of(made) is made
    assert Topology.of("uniform:2x2").name == made.name
    with pytest.raises(InputError, match="not int 4"):
        Topology.of(4)  # type: ignore[arg-type]


def test_summit_has_two_rails_and_shares_memory_inside_a_socket() -> None:
    socket, _, network = Topology.parse("summit:1").levels
    assert socket.load_store
    assert not network.load_store
    assert network.ports == 2


@EVERY
def test_level_of(tree: Machine) -> None:
    src, dst = (side.ravel().astype(np.int32) for side in np.indices((tree.num_ranks, tree.num_ranks)))
    expected = [tree.level_of(a, b) for a, b in zip(src.tolist(), dst.tolist(), strict=True)]
    level = tree.topology.level_of(src, dst)
    assert level.dtype == np.int32
    assert level.tolist() == expected


@EVERY
def test_entry_follows_the_lane_rule(tree: Machine) -> None:
    holder, rank = (side.ravel().astype(np.int32) for side in np.indices((tree.num_ranks, tree.num_ranks)))
    pairs = list(zip(holder.tolist(), rank.tolist(), strict=True))
    for level in range(-1, tree.num_levels):
        entry = tree.topology.entry(level, holder, rank)
        assert entry.dtype == np.int32
        assert entry.tolist() == [tree.entry(level, a, b) for a, b in pairs]


@EVERY
def test_members_and_first(tree: Machine) -> None:
    topology = tree.topology
    for level in range(tree.num_levels):
        group_of = topology.group_of(level)
        for p in range(tree.num_ranks):
            ranks, group = tree.members(level, p), np.array([group_of[p]])
            assert topology.first_of_group(level)[group_of[p]] == ranks[0]
            lanes = [topology.member(level, group, np.array([lane]))[0] for lane in range(2 * len(ranks))]
            assert lanes == ranks + ranks
    assert topology.first_of_group(-1).tolist() == list(range(tree.num_ranks))
    assert topology.num_groups(-1) == tree.num_ranks


def test_from_nodes_not_contiguous() -> None:
    topology = Topology.from_nodes([0, 1, 0, 1])
    assert topology.num_nodes == 2
    assert topology.rank_to_node.tolist() == [0, 1, 0, 1]
    # Rank 2 is lane 1 of its node, and lane 1 of the other node is rank 3.
    assert topology.entry(0, np.array([2]), np.array([1])).tolist() == [3]
    assert topology.level_of(np.array([0, 0]), np.array([2, 3])).tolist() == [0, 1]


@pytest.mark.parametrize("names", [[5, 5, 9], [-3, -3, 7], [2**40, 2**40, 2**40 + 2**32]])
def test_from_nodes_takes_any_node_numbers(names: list[int]) -> None:
    assert _same_groups(Topology.from_nodes(names), machine([0, 0, 1]))


@EVERY
def test_round_trip(tree: Machine) -> None:
    topology = tree.topology
    again = Topology.from_dict(topology.to_dict())
    assert (again.name, again.levels) == (topology.name, topology.levels)
    assert np.array_equal(again.groups, topology.groups)
    assert _same_groups(again, tree)


def test_groups_are_read_only() -> None:
    with pytest.raises(ValueError, match="read-only"):
        Topology.parse("uniform:2x2").groups[0, 0] = 1


def test_toml(tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_text(TREE)
    topology = Topology.parse(str(file))
    assert topology.name == "two racks"
    assert _same_groups(topology, machine([0, 0, 1, 2, 2, 2], [0, 0, 0, 1, 1, 1]))
    assert topology.levels[2] == Level("network", 5e-6, 12.5e9, ports=2)
    assert topology.levels[0].load_store


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("tree = [[2, 1], [3]]", ""),
        ("tree = [[2, 1], [3]]", "tree = []"),
        ("tree = [[2, 1], [3]]", "tree = [[0], [0]]"),
        ("tree = [[2, 1], [3]]", "tree = [2, 1]"),
        ("tree = [[2, 1], [3]]", "tree = [[[2]], [3]]"),
        ("tree = [[2, 1], [3]]", "tree = [[2, -1], [3]]"),
        ("tree = [[2, 1], [3]]", 'tree = [["two"], [3]]'),
        ("tree = [[2, 1], [3]]", "tree = 3"),
        ("tree = [[2, 1], [3]]", "tree = [[100000000000], [3]]"),
        ("latency_s = 1e-6", ""),
        ("latency_s = 1e-6", 'latency_s = "fast"'),
        ("latency_s = 1e-6", "latency_s = -1.0"),
        ("latency_s = 1e-6", "latency_s = nan"),
        ("bandwidth_Bps = 50e9", "bandwidth_Bps = 0"),
        ("ports = 2", "ports = 0"),
        ("ports = 2", "lanes = 2"),
        ("[[levels]]", "[levels]"),
        ('name = "two racks"', "name = "),
    ],
)
def test_bad_toml(tmp_path: Path, old: str, new: str) -> None:
    file = tmp_path / "bad.toml"
    assert old in TREE
    file.write_text(TREE.replace(old, new, 1))
    with pytest.raises(InputError, match=r"bad\.toml"):
        Topology.parse(str(file))


def test_toml_with_too_few_levels(tmp_path: Path) -> None:
    file = tmp_path / "flat.toml"
    file.write_text('tree = 4\n[[levels]]\nname = "network"\nlatency_s = 1e-6\nbandwidth_Bps = 1e9\n')
    with pytest.raises(InputError, match=r"flat"):
        Topology.parse(str(file))


def test_toml_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no topology file"):
        Topology.parse(str(tmp_path / "missing.toml"))
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(InputError, match=r"folder\.toml"):
        Topology.parse(str(tmp_path / "folder.toml"))
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"binary\.toml"):
        Topology.parse(str(tmp_path / "binary.toml"))


@pytest.mark.parametrize(
    "spec",
    [
        "uniform:0x4",
        "uniform:4x0",
        "uniform:-1x4",
        "uniform:2x-2",
        "uniform:4",
        "uniform:",
        "uniform",
        "uniform:2x2x2",
        "uniform:twox2",
        "uniform:1.5x2",
        f"uniform:{MAX_RANKS}x2",
        "uniform:1" + "0" * 5000 + "x1",
        "nodes:",
        "nodes:3,",
        "nodes:3,0",
        "nodes:-1",
        "nodes:three",
        f"nodes:{MAX_RANKS},1",
        "summit:0",
        "summit:-1",
        "summit:x",
        f"summit:{MAX_RANKS}",
        "",
        ":",
        "4x6",
        "torus:2x2",
    ],
)
def test_bad_spec(spec: str) -> None:
    with pytest.raises(InputError, match="topology"):
        Topology.parse(spec)


def test_unknown_kind_lists_the_forms() -> None:
    with pytest.raises(InputError) as error:
        Topology.parse("torus:2x2")
    for form in ("torus:2x2", "uniform:NxG", "nodes:G1,G2,...", "summit:N", ".toml"):
        assert form in str(error.value)


def test_largest_is_accepted_and_one_more_is_not() -> None:
    assert Topology.parse("uniform:1000x100").num_ranks == 100_000
    with pytest.raises(InputError, match=str(MAX_RANKS)):
        Topology.parse(f"nodes:{MAX_RANKS},1")


LEVELS = [{"name": name, "latency_s": 1e-6, "bandwidth_Bps": 1e9} for name in ("socket", "node", "network")]


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"name": "x", "levels": LEVELS},
        {"name": "x", "levels": LEVELS, "groups": []},
        {"name": "x", "levels": LEVELS, "groups": [[0, 0]]},
        {"name": "x", "levels": LEVELS, "groups": [[], []]},
        {"name": "x", "levels": LEVELS, "groups": [[0, 1], [0]]},
        {"name": "x", "levels": LEVELS, "groups": [["a"], ["b"]]},
        {"name": "x", "levels": LEVELS, "groups": [[0, 2**80], [0, 0]]},
        {"name": "x", "levels": [{"name": "node"}], "groups": [[0], [0]]},
        {"name": "x", "levels": 3, "groups": [[0], [0]]},
        {"name": "x", "levels": LEVELS[:1], "groups": []},
    ],
)
def test_from_dict_refuses(data: dict[str, object]) -> None:
    with pytest.raises(InputError):
        Topology.from_dict(data)


def test_groups_must_nest() -> None:
    with pytest.raises(InputError, match="lies in two groups"):
        Topology.from_dict({"name": "x", "levels": LEVELS, "groups": [[0, 0, 1, 1], [0, 1, 1, 1]]})


def test_outermost_level_must_be_one_group() -> None:
    levels = tuple(Level(**level) for level in LEVELS[1:])
    with pytest.raises(InputError, match="one group"):
        Topology("x", levels, np.array([[0, 1], [0, 1]], dtype=np.int32))


@pytest.mark.parametrize("nodes", [[], [[0, 1], [0, 1]]])
def test_from_nodes_refuses(nodes: list[object]) -> None:
    with pytest.raises(InputError):
        Topology.from_nodes(nodes)
