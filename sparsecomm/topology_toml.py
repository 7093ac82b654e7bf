"""Topologies as TOML files, written by hand or by `Topology.to_toml`."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any, Final

import numpy as np

from sparsecomm.errors import InputError
from sparsecomm.topology import CORE, MAX_RANKS, Device, Level, Topology, make_tree
from sparsecomm.typing import IntRank

_NEEDS: Final = "it needs `tree` (or `groups`) and `[[levels]]`, see docs/topology.md"


def read_toml(path: Path) -> Topology:
    """Read `[[levels]]` and who is where.

    That is either `tree`, nested lists whose leaves count the ranks of an innermost group, or, where neighbours in
    the tree have no neighbouring numbers, `groups`: the group of every rank, for every level but the outermost.
    `[device]` says what holds the rows of a rank; without it that is a core.
    `links` lists the direct links, each as [rank, rank, bytes per second].

    Raises:
        InputError: there is no such file, or it does not describe a topology.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        levels = tuple(Level(**level) for level in data["levels"])
        device = Device(**data["device"]) if "device" in data else CORE
        topology = make_tree(str(data.get("name", path.stem)), levels, _read_groups(data, len(levels)), device)
        return topology.with_links(data.get("links", ()))
    except FileNotFoundError:
        raise InputError(f"no topology file {path}") from None
    except (KeyError, OSError, OverflowError, RecursionError, TypeError, ValueError) as err:
        raise InputError(f"{path} is not a topology: {err}; {_NEEDS}") from err


def _read_groups(data: dict[str, Any], num_levels: int) -> list[np.ndarray[Any, Any]]:
    if "groups" not in data:
        return _flatten(data["tree"], num_levels)
    if "tree" in data:
        raise ValueError("give `tree` or `groups`, not both")
    groups = data["groups"]
    if not _are_numbers(groups) or len({len(row) for row in groups}) > 1:
        raise ValueError("`groups` must be lists of whole numbers, all equally long")
    return [np.asarray(row, dtype=np.int64) for row in groups]


def _are_numbers(groups: Any) -> bool:
    return isinstance(groups, list) and all(
        isinstance(row, list) and all(type(one) is int for one in row) for row in groups
    )


def _flatten(tree: Any, num_levels: int) -> list[np.ndarray[Any, Any]]:
    """Return `rank_to_group` of every level but the outermost, inner to outer, of nested lists of rank counts."""
    paths: list[tuple[int, ...]] = []  # of the innermost groups
    sizes: list[int] = []

    def walk(branch: Any, path: tuple[int, ...]) -> None:
        if isinstance(branch, list):
            for index, child in enumerate(branch):
                walk(child, (*path, index))
        elif isinstance(branch, int) and branch >= 0 and len(path) == num_levels - 1:
            paths.append(path)
            sizes.append(branch)
        else:
            raise ValueError(f"tree must be lists nested {num_levels - 1} deep around rank counts")

    walk(tree, ())
    if sum(sizes) > MAX_RANKS:
        raise ValueError(f"it has more than {MAX_RANKS} ranks")
    numbers = [{p: i for i, p in enumerate(dict.fromkeys(q[:depth] for q in paths))} for depth in range(num_levels)]
    by_depth = [np.array([numbers[d][p[:d]] for p in paths], dtype=np.int64) for d in range(num_levels - 1, 0, -1)]
    return [np.repeat(row, sizes) for row in by_depth]


def to_toml(topology: Topology) -> str:
    """Return a text that `read_toml` makes the same topology of."""
    lines = [f"name = {_text(topology.name)}", _write_groups(topology)]
    if len(topology.links):
        lines.append("links = [\n" + "".join(f"  {list(link)},\n" for link in topology.link_list()) + "]")
    if topology.device != CORE:
        lines += ["", "[device]", f"name = {_text(topology.device.name)}"]
        lines += [f"{key} = {float(getattr(topology.device, key))!r}" for key in ("memory_Bps", "launch_s", "host_Bps")]
    for level in topology.levels:
        lines += [
            "",
            "[[levels]]",
            f"name = {_text(level.name)}",
            f"latency_s = {float(level.latency_s)!r}",
            f"bandwidth_Bps = {float(level.bandwidth_Bps)!r}",
            f"ports = {level.ports}",
            f"load_store = {str(level.load_store).lower()}",
        ]
        lines += [f"direct_Bps = {float(level.direct_Bps)!r}"] * bool(level.direct_Bps)
    return "\n".join(lines) + "\n"


def _text(value: str) -> str:
    """Quote a string: JSON's escapes are TOML's, but for one character that only TOML wants escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _write_groups(topology: Topology) -> str:
    if all(np.all(np.diff(topology.group_of(level)) >= 0) for level in range(topology.num_levels)):
        return f"tree = {_nest(topology)}"
    rows = ",\n".join(f"  {row.tolist()}" for row in topology.groups[:-1])
    return f"groups = [\n{rows},\n]"


def _nest(topology: Topology) -> list[Any]:
    """Return nested lists, outermost first, whose leaves count the ranks of the innermost groups."""
    leaves: list[Any] = np.bincount(topology.group_of(0)).tolist()
    for level in range(1, topology.num_levels):
        parent: IntRank = topology.group_of(level)[topology.first_of_group(level - 1)]
        start = np.searchsorted(parent, np.arange(topology.num_groups(level) + 1))
        leaves = [leaves[start[i] : start[i + 1]] for i in range(start.size - 1)]
    nested: list[Any] = leaves[0]
    return nested
