"""What is there of a cluster, compared with what was asked for."""

from __future__ import annotations

from typing import Any

from sparsecomm.errors import LaunchError
from sparsecomm.launch.cluster import network, slurm
from sparsecomm.launch.cluster.names import LINK, Node, show_bandwidth
from sparsecomm.launch.cluster.processes import find_processes
from sparsecomm.launch.cluster.state import UP, State, load_state

Json = dict[str, Any]


def problems(state: State) -> list[str]:
    """Return what is wrong with a cluster that is up."""
    found = network.problems(state)
    if not found and state.cluster.slurm:
        found = slurm.problems(state.cluster, slurm.node_states(state))
    return found


def check_sound(state: State, found: list[str]) -> None:
    """Refuse a cluster in which something was found to be wrong.

    Raises:
        LaunchError: with what.
    """
    if found:
        raise LaunchError(
            f"{state.cluster} is up but damaged: {'; '.join(found)}; use `sparsecomm cluster down`, then `up`"
        )


def report(name: str) -> Json:
    """Return what is there of a cluster; `state` is `absent`, `unfinished`, `up` or `damaged`."""
    state = load_state(name)
    if state is None:
        return {"schema": "sparsecomm.cluster/1", "name": name, "state": "absent", "problems": []}
    found = problems(state) if state.phase == UP else ["`up` was killed before it was done; use `down`"]
    phase = "unfinished" if state.phase != UP else "damaged" if found else "up"
    slurm_states = slurm.node_states(state) if state.cluster.slurm and phase != "unfinished" else {}
    return {
        "schema": "sparsecomm.cluster/1",
        "name": name,
        "state": phase,
        "problems": found,
        "folder": str(state.folder),
        "ranks": state.cluster.num_ranks,
        "bandwidth_bps": state.cluster.bandwidth_bps,
        "slurm": state.cluster.slurm,
        "nodes": [_node(state, node, slurm_states) for node in state.cluster.all_nodes],
    }


def _node(state: State, node: Node, slurm_states: dict[str, str]) -> Json:
    there = network.exists(node) and network.is_ours(state, node)
    link = network.read_link(node.namespace, node.device) if there else network.Link(up=False, bandwidth_bps=0)
    return {
        "name": node.name,
        "namespace": node.namespace,
        "address": node.address,
        "ranks": node.num_ranks,
        "there": there,
        "link": "up" if link.up else "down",
        "bandwidth_bps": link.bandwidth_bps if node.device == LINK else None,
        "processes": len(find_processes([node.namespace])) if there else 0,
        "slurm": slurm_states.get(node.name),
    }


def show(facts: Json) -> None:
    """Print a report as a table."""
    from rich.console import Console
    from rich.table import Table

    console = Console(soft_wrap=True, highlight=False)
    console.print(f"cluster {facts['name']}: {facts['state']}")
    for problem in facts["problems"]:
        console.print(f"  {problem}", markup=False)
    if facts["state"] == "absent":
        return
    table = Table("node", "address", "ranks", "link", "rate", "processes", "Slurm")
    for node in facts["nodes"]:
        rate = show_bandwidth(node["bandwidth_bps"]) if node["bandwidth_bps"] else "-"
        link = node["link"] if node["there"] else "gone"
        words = (node["name"], node["address"], node["ranks"] or "-", link, rate, node["processes"], node["slurm"])
        table.add_row(*(str(word if word is not None else "-") for word in words))
    console.print(table)
    console.print(f"a shell on a node: {facts['folder']}/agent node0 bash", markup=False)
