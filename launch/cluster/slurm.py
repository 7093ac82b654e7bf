"""Slurm on a cluster: munged and slurmctld on the head, a slurmd on each node, everything in the cluster's folder."""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path
from typing import Final

from sparsecomm.errors import LaunchError
from sparsecomm.launch.cluster.agent import enter
from sparsecomm.launch.cluster.interrupt import Interrupt
from sparsecomm.launch.cluster.names import Cluster
from sparsecomm.launch.cluster.state import State
from sparsecomm.launch.cluster.tools import run_tool

_START_TIMEOUT_S: Final = 120.0
_LOG_LINES: Final = 5

# GPUs are a word that it knows, so that scripts which ask for them can be tried: scontrol update Gres=gpu:8 ...
_CONFIG: Final = """\
ClusterName={name}
SlurmctldHost={head}({address})
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/slurmctld
SlurmdSpoolDir={folder}/slurmd-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
MpiDefault=pmi2
GresTypes=gpu
ReturnToService=2
KillWait=2
MailProg=/bin/true
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
# Without this slurmd looks for a unified hierarchy, which not every machine has; nothing here uses cgroups.
_CGROUP_CONFIG: Final = "CgroupPlugin=cgroup/v1\nCgroupMountpoint=/sys/fs/cgroup\n"
# `ip netns exec` has mounted a sysfs of the node, and slurmd wants to find cgroups in it.
_SLURMD: Final = "mount -t cgroup2 none /sys/fs/cgroup && exec slurmd -N {node}"


def write_config(state: State) -> None:
    """Write the configuration, the key of munge and the folders of the daemons."""
    folder, head = state.folder, state.cluster.head
    (folder / "slurmctld").mkdir()
    nodes = "\n".join(f"NodeName={one.name} NodeAddr={one.address} CPUs={one.num_ranks}" for one in state.cluster.nodes)
    config = _CONFIG.format(name=state.cluster.name, head=head.name, address=head.address, folder=folder, nodes=nodes)
    config_path(state).write_text(config)
    (folder / "cgroup.conf").write_text(_CGROUP_CONFIG)
    for node in state.cluster.nodes:
        (folder / f"slurmd-{node.name}").mkdir()
    key = os.open(folder / "munge.key", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
    with open(key, "wb") as file:
        file.write(secrets.token_bytes(128))


def config_path(state: State) -> Path:
    return state.folder / "slurm.conf"


def slurm_environment(state: State) -> dict[str, str]:
    """Return what commands of Slurm need to find this cluster."""
    return {"SLURM_CONF": str(config_path(state))} if state.cluster.slurm else {}


def start_munge(state: State) -> None:
    """Start the daemon that signs messages; it goes to the background once it is ready."""
    paths = {
        "--key-file": "munge.key",
        "--socket": "munge.socket",
        "--pid-file": "munged.pid",
        "--log-file": "munged.log",
        "--seed-file": "munged.seed",
    }
    command = ["munged", *(f"{option}={state.folder / name}" for option, name in paths.items())]
    run_tool(*enter(state, "head", command))


def start_controller(state: State) -> None:
    run_tool(*enter(state, "head", ["slurmctld"]), env=slurm_environment(state))


def start_node(state: State, node: str) -> None:
    command = ["sh", "-c", _SLURMD.format(node=node)]
    run_tool(*enter(state, node, command), env=slurm_environment(state))


def wait_idle(state: State, interrupt: Interrupt) -> None:
    """Wait until Slurm says that all nodes are ready.

    Raises:
        LaunchError: they are not in time, with the end of the logs; or interrupted.
    """
    deadline = time.monotonic() + _START_TIMEOUT_S
    while set((states := node_states(state)).values()) != {"idle"} or len(states) != len(state.cluster.nodes):
        interrupt.check()
        if time.monotonic() > deadline:
            raise LaunchError(f"Slurm is not ready after {_START_TIMEOUT_S:g} s: {states}\n{_log_tails(state)}")
        time.sleep(0.1)


def node_states(state: State) -> dict[str, str]:
    """Return `node_to_state` as Slurm has it (`idle`, `allocated`, ...); empty where the controller is silent."""
    try:
        listing = run_tool(*enter(state, "head", ["sinfo", "-h", "-N", "-o", "%N %T"]), env=slurm_environment(state))
    except LaunchError:
        return {}
    words = (line.partition(" ") for line in listing.splitlines())
    return {node: state for node, _, state in words}


def problems(cluster: Cluster, node_to_state: dict[str, str]) -> list[str]:
    """Return what is wrong with Slurm: nodes that it cannot use."""
    bad = ("down", "drained", "draining", "unknown", "fail", "")
    found = [(node.name, node_to_state.get(node.name, "")) for node in cluster.nodes]
    return [
        f"Slurm has {name} as {state or 'missing'}" for name, state in found if state.rstrip("*") in bad or "*" in state
    ]


def _log_tails(state: State) -> str:
    logs = sorted(state.folder.glob("*.log"))
    tails = (f"{log.name}: {line}" for log in logs for line in log.read_text().splitlines()[-_LOG_LINES:])
    return "\n".join(tails)
