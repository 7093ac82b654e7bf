"""What was made for a cluster, on disk, so that any later command finds it and touches nothing else.

Each cluster has a folder, `/var/lib/sparsecomm-cluster/NAME`, or that in `$SPARSECOMM_CLUSTER_STATE`. The state is
written before anything is made: whatever ends the command that makes a cluster, the next one knows what to remove.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sparsecomm.errors import InputError, LaunchError
from sparsecomm.launch.cluster.names import Cluster, check_name

STARTING, UP = "starting", "up"
_SCHEMA: Final = "sparsecomm.cluster-state/1"
_FILE: Final = "state.json"
_LOCK_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class State:
    """A cluster that was made, or is being made.

    Args:
        cluster: what was asked for.
        token: drawn for this cluster; whatever it made carries it.
        phase: `starting` until all of it is there, then `up`.
        creating: the namespace that was about to be made, which may lack the token.
    """

    cluster: Cluster
    token: str
    phase: str
    creating: str = ""

    @property
    def folder(self) -> Path:
        return folder_of(self.cluster.name)

    @property
    def mark(self) -> str:
        """What the loopback device of each namespace of this cluster has as its alias."""
        return f"sparsecomm-cluster {self.token}"


def folder_of(name: str) -> Path:
    """Return the folder of a cluster, whether there is one or not."""
    check_name(name)
    return _root() / name


def load_state(name: str) -> State | None:
    """Return the cluster of that name, or None where there is none.

    Raises:
        LaunchError: there is a folder, but not one of ours.
    """
    folder = folder_of(name)
    if not folder.exists():
        return None
    if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
        raise LaunchError(f"{folder} belongs to someone else; choose another --name")
    try:
        data = json.loads((folder / _FILE).read_text())
        if data["schema"] != _SCHEMA:
            raise ValueError(f"schema {data['schema']!r} is not {_SCHEMA!r}")
        return State(Cluster.from_dict(data["cluster"]), str(data["token"]), str(data["phase"]), str(data["creating"]))
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise LaunchError(f"{folder / _FILE} does not describe a cluster ({err}); look at it, then remove it") from err


def load_up(name: str) -> State:
    """Return the cluster of that name.

    Raises:
        LaunchError: there is none, or it was not finished.
    """
    state = load_state(name)
    if state is None:
        raise LaunchError(f"there is no cluster {name!r}; make it with `sparsecomm cluster up`")
    if state.phase != UP:
        raise LaunchError(f"cluster {name!r} was not finished; remove it with `sparsecomm cluster down`")
    return state


def save_state(state: State) -> State:
    """Write the state beside the old one, then in its place, and return it."""
    data = {
        "schema": _SCHEMA,
        "cluster": state.cluster.to_dict(),
        "token": state.token,
        "phase": state.phase,
        "creating": state.creating,
    }
    new = state.folder / f"{_FILE}.new"
    new.write_text(json.dumps(data))
    new.rename(state.folder / _FILE)
    return state


def make_folder(name: str) -> None:
    """Make the folder of a cluster.

    Raises:
        InputError: its path cannot stand in a job script, or in the address of a socket.
        LaunchError: it cannot be written.
    """
    folder = folder_of(name)
    if not str(folder).replace("/", "").replace("-", "").replace(".", "").replace("_", "").isalnum():
        raise InputError(f"state folder {str(folder)!r}; let it be of letters, digits, '-', '_' and '.' only")
    try:
        folder.mkdir(mode=0o755)
    except OSError as err:
        raise LaunchError(f"cannot make {folder} ({err.strerror}); set SPARSECOMM_CLUSTER_STATE to a folder") from err


def remove_folder(name: str) -> None:
    """Remove the folder of a cluster."""
    shutil.rmtree(folder_of(name), ignore_errors=True)


@contextmanager
def locked() -> Iterator[None]:
    """Keep other commands from making or removing clusters meanwhile.

    Raises:
        LaunchError: another command is still at it after ten seconds.
    """
    deadline = time.monotonic() + _LOCK_TIMEOUT_S
    while (descriptor := _lock()) is None:
        if time.monotonic() > deadline:
            raise LaunchError("another `sparsecomm cluster` command is at work here; wait for it, or end it")
        time.sleep(0.1)
    try:
        yield
    finally:
        with suppress(OSError):
            _root().rmdir()  # where it is empty
        os.close(descriptor)


def _lock() -> int | None:
    """Return a descriptor of the folder of all clusters, locked, or None where someone else has it."""
    root = _root()
    try:
        root.mkdir(mode=0o755, parents=True, exist_ok=True)
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as err:
        raise LaunchError(f"cannot make {root} ({err.strerror}); set SPARSECOMM_CLUSTER_STATE to a folder") from err
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), os.stat(root)):  # not removed since
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def _root() -> Path:
    return Path(os.environ.get("SPARSECOMM_CLUSTER_STATE") or "/var/lib/sparsecomm-cluster")
