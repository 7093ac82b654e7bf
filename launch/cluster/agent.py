"""The scripts that a cluster has in its folder: one enters a node as ssh would, one runs a rank."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Final

from sparsecomm.launch.cluster.state import State

# As with ssh, leading options are dropped and the words of the command are joined for a shell of the node. The file
# of host names is mounted in a mount namespace of `ip netns exec`, so that only the processes of the node see it.
_AGENT: Final = """\
#!/bin/sh
# Enter a node of {cluster}: agent [options of ssh] HOST COMMAND...
PATH="$PATH:/usr/sbin:/sbin"
while [ "${{1#-}}" != "$1" ]; do shift; done
host=$1
shift
case $host in
{cases}
*) echo "agent: $host is not a node of this cluster" >&2; exit 255 ;;
esac
exec ip netns exec "$namespace" unshare --uts sh -c '
    mount --bind "$1" /etc/hosts && mount -t tmpfs -o mode=1777 tmpfs /dev/shm && hostname "$2" || exit 255
    shift 2
    exec sh -c "$*"' sh {hosts} "$name" "$@"
"""


def write_scripts(state: State) -> None:
    """Write the scripts and the file of host names into the folder of the cluster."""
    nodes = state.cluster.all_nodes
    hosts = state.folder / "hosts"
    hosts.write_text("127.0.0.1 localhost\n" + "".join(f"{node.address} {node.name}\n" for node in nodes))
    cases = "\n".join(f"{node.name}|{node.address}) namespace={node.namespace} name={node.name} ;;" for node in nodes)
    title = f"cluster {state.cluster.name}"
    _write(agent_path(state), _AGENT.format(cluster=title, cases=cases, hosts=shlex.quote(str(hosts))))


def agent_path(state: State) -> Path:
    return state.folder / "agent"


def enter(state: State, node: str, command: list[str]) -> list[str]:
    """Return the command that runs `command` on a node."""
    return [str(agent_path(state)), node, shlex.join(command)]


def _write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)
