"""What the system lets a process have: open files, memory, shared memory."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sparsecomm.launch.machine.cgroup import find_memory_limit

SHM: Final = Path("/dev/shm")
# Names that MPI libraries give to their segments.
_SEGMENTS: Final = ("mpich_shm_*", "sm_segment.*", "vader_segment.*", "psm*_shm*", "Intel_MPI_*", "sparsecomm-*")


@dataclass(frozen=True, slots=True)
class SharedMemory:
    """The file system behind shared memory.

    Args:
        total_bytes: of it.
        free_bytes: of it.
        left_bytes: in segments of this user that no process of this user has mapped: dead jobs left them.
        num_left: such segments.
    """

    total_bytes: int
    free_bytes: int
    left_bytes: int = 0
    num_left: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a process; None is unlimited.

    Args:
        open_files: soft limit (`ulimit -n`).
        locked_bytes: memory that may be locked (`ulimit -l`).
        stack_bytes: of the main thread (`ulimit -s`).
        address_bytes: of the address space (`ulimit -v`).
        memory_bytes: of the control group.
        ram_bytes: of the machine, or 0 where it is not known.
        shm: /dev/shm, or None where there is none.
        rdma: InfiniBand and RoCE devices, which need locked memory.
    """

    open_files: int | None
    locked_bytes: int | None
    stack_bytes: int | None
    address_bytes: int | None
    memory_bytes: int | None
    ram_bytes: int
    shm: SharedMemory | None
    rdma: tuple[str, ...] = ()


def find_limits() -> Limits:
    """Return the limits of this process."""
    rdma = Path("/sys/class/infiniband")
    return Limits(
        _soft(resource.RLIMIT_NOFILE),
        _soft(resource.RLIMIT_MEMLOCK),
        _soft(resource.RLIMIT_STACK),
        _soft(resource.RLIMIT_AS),
        find_memory_limit(),
        os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        find_shared_memory(),
        tuple(sorted(device.name for device in rdma.iterdir())) if rdma.is_dir() else (),
    )


def find_shared_memory(folder: Path = SHM, proc: Path = Path("/proc")) -> SharedMemory | None:
    """Return the space of /dev/shm and what dead jobs left there."""
    try:
        system = os.statvfs(folder)
    except OSError:
        return None
    own = [_status(file) for pattern in _SEGMENTS for file in folder.glob(pattern)]
    kept = {status.st_ino: status for status in own if status and status.st_uid == os.getuid()}
    mapped = _mapped(folder, proc) if kept else set()
    left = [status for number, status in kept.items() if number not in mapped]
    num_bytes = sum(status.st_blocks * 512 for status in left)
    return SharedMemory(system.f_blocks * system.f_frsize, system.f_bavail * system.f_frsize, num_bytes, len(left))


def _mapped(folder: Path, proc: Path) -> set[int]:
    """Return the inodes of the files in `folder` that a process has mapped; those of others cannot be read."""
    found = set()
    for maps in proc.glob("[0-9]*/maps"):
        try:
            lines = maps.read_text(errors="replace").splitlines()
        except OSError:
            continue
        found |= {int(line.split()[4]) for line in lines if f" {folder}/" in line}
    return found


def _status(file: Path) -> os.stat_result | None:
    try:
        return file.stat()
    except OSError:
        return None


def _soft(which: int) -> int | None:
    soft, _ = resource.getrlimit(which)
    return None if soft == resource.RLIM_INFINITY else soft
