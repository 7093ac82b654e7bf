"""Namespaces, the bridge between them, and the rate of its links.

The bridge is in a namespace of its own, the head: nothing is added to the network of the machine, and removing the
namespaces removes every device.
"""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

from sparsecomm.errors import InputError, LaunchError
from sparsecomm.launch.cluster.names import BRIDGE, LINK, Cluster, Node
from sparsecomm.launch.cluster.processes import find_processes, namespace_path
from sparsecomm.launch.cluster.state import State, save_state
from sparsecomm.launch.cluster.tools import run_tool

_PREFIX_BITS: Final = 24
_LATENCY: Final = "100ms"  # how long a packet may queue for its turn before it is dropped
_RATE_TOLERANCE: Final = 0.01  # tc rounds rates


class Link(NamedTuple):
    """One end of a link, as the kernel has it: whether it is up, and its rate, 0 where it has none."""

    up: bool
    bandwidth_bps: int


def make_namespace(state: State, node: Node) -> State:
    """Make the namespace of a node, marked as ours.

    Raises:
        LaunchError: it exists, or cannot be made.
    """
    state = save_state(_creating(state, node.namespace))
    try:
        run_tool("ip", "netns", "add", node.namespace)
    except LaunchError:
        save_state(_creating(state, ""))
        raise
    run_tool("ip", "-n", node.namespace, "link", "set", "lo", "alias", state.mark)
    run_tool("ip", "-n", node.namespace, "link", "set", "lo", "up")
    return save_state(_creating(state, ""))


def _creating(state: State, namespace: str) -> State:
    return State(state.cluster, state.token, state.phase, namespace)


def make_bridge(head: Node) -> None:
    """Make the bridge and give the head its address on it."""
    run_tool("ip", "-n", head.namespace, "link", "add", BRIDGE, "type", "bridge")
    run_tool("ip", "-n", head.namespace, "address", "add", f"{head.address}/{_PREFIX_BITS}", "dev", BRIDGE)
    run_tool("ip", "-n", head.namespace, "link", "set", BRIDGE, "up")


def make_link(cluster: Cluster, node: Node) -> None:
    """Connect a node to the bridge, at the rate of the cluster in both directions."""
    inside, head = ("ip", "-n", node.namespace), ("ip", "-n", cluster.head.namespace)
    run_tool(*head, "link", "add", node.port, "type", "veth", "peer", "name", LINK, "netns", node.namespace)
    _limit(cluster, cluster.head.namespace, node.port)
    _limit(cluster, node.namespace, LINK)
    run_tool(*head, "link", "set", node.port, "master", BRIDGE, "up")
    run_tool(*inside, "address", "add", f"{node.address}/{_PREFIX_BITS}", "dev", LINK)
    run_tool(*inside, "link", "set", LINK, "up")


def _limit(cluster: Cluster, namespace: str, device: str) -> None:
    rate, burst = f"{cluster.bandwidth_bps}bit", f"{cluster.burst_bytes}b"
    queue = ("root", "tbf", "rate", rate, "burst", burst, "latency", _LATENCY)
    run_tool("tc", "-n", namespace, "qdisc", "add", "dev", device, *queue)


def exists(node: Node) -> bool:
    """Say whether there is a namespace of that name, whoever made it."""
    return namespace_path(node.namespace).exists()


def check_names_free(cluster: Cluster) -> None:
    """Refuse to begin where a namespace of that name exists.

    Raises:
        InputError: with the names.
    """
    taken = [node.namespace for node in cluster.all_nodes if exists(node)]
    if taken:
        raise InputError(
            f"network namespace {', '.join(taken)} exists and was not made by this cluster; it is left alone: "
            "choose another --name, or remove it with `ip netns delete`"
        )


def is_ours(state: State, node: Node) -> bool:
    """Say whether the namespace of a node is there and is the one that this cluster made."""
    if not exists(node):
        return False
    devices = _devices(node.namespace)
    mark = next((one.get("ifalias", "") for one in devices if one["ifname"] == "lo"), "")
    # Killed between making a namespace and marking it: then nothing is in it yet.
    bare = node.namespace == state.creating and not mark and len(devices) == 1
    return mark == state.mark or (bare and not find_processes([node.namespace]))


def remove_namespace(node: Node) -> None:
    """Remove a namespace and with it all devices that are in it."""
    run_tool("ip", "netns", "delete", node.namespace)


def problems(state: State) -> list[str]:
    """Compare namespaces and links with what was asked for; return what is wrong with them."""
    found = []
    for node in state.cluster.all_nodes:
        if not exists(node):
            found.append(f"namespace {node.namespace} is gone")
        elif not is_ours(state, node):
            found.append(f"namespace {node.namespace} was made by someone else")
    if not found:
        found = [problem for node in state.cluster.nodes for problem in _link_problems(state.cluster, node)]
    return found


def _link_problems(cluster: Cluster, node: Node) -> list[str]:
    ends = {LINK: read_link(node.namespace, LINK), node.port: read_link(cluster.head.namespace, node.port)}
    found = [f"{device} of {node.name} is down or gone" for device, link in ends.items() if not link.up]
    wanted = cluster.bandwidth_bps
    for device, link in ends.items():
        if link.up and abs(link.bandwidth_bps - wanted) > _RATE_TOLERANCE * wanted:
            found.append(f"{device} of {node.name} has a rate of {link.bandwidth_bps} bit/s, not {wanted}")
    return found


def read_link(namespace: str, device: str) -> Link:
    """Ask the kernel for one end of a link."""
    devices = [one for one in _devices(namespace) if one["ifname"] == device]
    if not devices:
        return Link(up=False, bandwidth_bps=0)
    queues = json.loads(run_tool("tc", "-n", namespace, "-j", "qdisc", "show", "dev", device) or "[]")
    rates = [int(one["options"]["rate"]) * 8 for one in queues if one["kind"] == "tbf" and one.get("root")]
    return Link("UP" in devices[0]["flags"], rates[0] if rates else 0)


def _devices(namespace: str) -> list[dict[str, Any]]:
    devices: list[dict[str, Any]] = json.loads(run_tool("ip", "-n", namespace, "-j", "link", "show"))
    return devices
