"""The processes inside namespaces, and ending them: those and no others."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from sparsecomm.errors import LaunchError

_KILL_S = 5.0


def namespace_path(namespace: str) -> Path:
    """Return the file by which `ip netns` keeps a namespace."""
    return Path("/var/run/netns", namespace)


def find_processes(namespaces: Iterable[str], variable: str = "", *, without: str = "") -> list[int]:
    """Return the ids of all processes in the namespaces.

    Args:
        namespaces: names; those that do not exist are skipped.
        variable: `NAME=value`; only processes with this in their environment.
        without: `NAME=value`; none that has this too.
    """
    wanted = {key for name in namespaces if (key := _key(namespace_path(name))) is not None}
    found = [int(entry) for entry in os.listdir("/proc") if entry.isdecimal()]
    return [pid for pid in found if wanted and _key(_net(pid)) in wanted and _has(pid, variable, without)]


def end_processes(find: Callable[[], list[int]], grace_s: float) -> None:
    """Terminate the processes that `find` finds; kill those that are left after `grace_s` seconds.

    Raises:
        LaunchError: some are still there.
    """
    asked: set[int] = set()
    soft_until = time.monotonic() + grace_s
    while pids := find():
        now = time.monotonic()
        if now > soft_until + _KILL_S:
            raise LaunchError(f"processes {pids} do not end; look at them, then try again")
        hard = now >= soft_until
        for pid in pids if hard else set(pids) - asked:
            _send(pid, signal.SIGKILL if hard else signal.SIGTERM, find)
        asked.update(pids)
        time.sleep(0.02)


def _send(pid: int, number: signal.Signals, find: Callable[[], list[int]]) -> None:
    """Send a signal to a process through a handle, so that a number given away anew is not hit."""
    with suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        try:
            if pid in find():
                signal.pidfd_send_signal(handle, number)
        finally:
            os.close(handle)


def _net(pid: int) -> Path:
    return Path("/proc", str(pid), "ns", "net")


def _key(path: Path) -> tuple[int, int] | None:
    """Return what makes two paths the same namespace, or None where there is none (zombies have none)."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _has(pid: int, variable: str, without: str) -> bool:
    if not variable:
        return True
    try:
        environ = Path("/proc", str(pid), "environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return os.fsencode(variable) in environ and not (without and os.fsencode(without) in environ)
