"""Making a cluster and removing it: both can be asked for again, and neither leaves half of it behind."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from sparsecomm.errors import InputError, LaunchError
from sparsecomm.launch.cluster import network, slurm
from sparsecomm.launch.cluster.agent import write_scripts
from sparsecomm.launch.cluster.interrupt import Interrupt
from sparsecomm.launch.cluster.names import Cluster, Node
from sparsecomm.launch.cluster.processes import end_processes, find_processes
from sparsecomm.launch.cluster.state import (
    STARTING,
    UP,
    State,
    load_state,
    locked,
    make_folder,
    remove_folder,
    save_state,
)
from sparsecomm.launch.cluster.status import check_sound, problems
from sparsecomm.launch.cluster.tools import check_machine

_GRACE_S: Final = 3.0  # for processes to end themselves; slurmctld takes one second


def up(cluster: Cluster) -> bool:
    """Make a cluster, or all of nothing.

    Returns:
        Whether anything had to be done.

    Raises:
        InputError: another cluster of that name is up, or one of its namespaces exists already.
        LaunchError: the machine lacks something, a step failed, or a signal came; what was made is removed.
    """
    check_machine(slurm=cluster.slurm)
    with locked(), Interrupt() as interrupt:
        if _is_up(cluster):
            return False
        network.check_names_free(cluster)
        make_folder(cluster.name)
        state = save_state(State(cluster, secrets.token_hex(16), STARTING))
        try:
            for step in _steps(state, interrupt):
                interrupt.check()
                step()
            interrupt.check()
            save_state(State(cluster, state.token, UP))
        except BaseException:
            _remove(state)
            raise
    return True


def down(name: str) -> bool:
    """Remove a cluster: the processes in its namespaces, the namespaces with their devices, its folder.

    Returns:
        Whether there was one.

    Raises:
        LaunchError: namespaces of its names were made by someone else and are left alone.
    """
    with locked(), Interrupt():
        state = load_state(name)
        if state is None:
            return False
        check_machine(slurm=False)
        left = _remove(state)
    if left:
        raise LaunchError(
            f"namespace {', '.join(left)} was not made by this cluster and is left alone; the rest is gone"
        )
    return True


def _is_up(cluster: Cluster) -> bool:
    """Say whether the very cluster is there; clear away what an `up` that was killed, or a reboot, has left.

    Raises:
        InputError: another one of that name is up.
        LaunchError: it is, but damaged.
    """
    state = load_state(cluster.name)
    if state is None:
        return False
    if state.phase != UP or not any(network.exists(node) for node in state.cluster.all_nodes):
        _remove(state)
        return False
    if state.cluster != cluster:
        raise InputError(f"{state.cluster} is up; remove it with `sparsecomm cluster down`, or choose another --name")
    check_sound(state, problems(state))
    return True


def _steps(state: State, interrupt: Interrupt) -> Iterator[Callable[[], object]]:
    """Yield what makes a cluster, in steps that are short enough to be waited for when a signal comes."""
    cluster = state.cluster
    yield partial(write_scripts, state)
    for node in cluster.all_nodes:
        yield partial(network.make_namespace, state, node)
    yield partial(network.make_bridge, cluster.head)
    for node in cluster.nodes:
        yield partial(network.make_link, cluster, node)
    if cluster.slurm:
        yield partial(slurm.write_config, state)
        yield partial(slurm.start_munge, state)
        yield partial(slurm.start_controller, state)
        for node in cluster.nodes:
            yield partial(slurm.start_node, state, node.name)
        yield partial(slurm.wait_idle, state, interrupt)


def _remove(state: State) -> list[str]:
    """Remove all that carries the mark of this cluster; return the namespaces that do not."""
    state = load_state(state.cluster.name) or state  # as it is on disk: the namespace being made, if any
    there = [node for node in state.cluster.all_nodes if network.exists(node)]
    ours = [node for node in there if network.is_ours(state, node)]
    _end_all(ours)
    for node in reversed(ours):
        network.remove_namespace(node)
    remove_folder(state.cluster.name)
    return [node.namespace for node in there if node not in ours]


def _end_all(nodes: list[Node]) -> None:
    names = [node.namespace for node in nodes]
    end_processes(lambda: find_processes(names), _GRACE_S)
