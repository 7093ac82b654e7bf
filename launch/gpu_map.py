"""Which GPU belongs to which rank of a node: the local rank is not the GPU index on every machine."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from sparsecomm.errors import InputError

VARIABLE: Final = "SPARSECOMM_GPU_MAP"

_MI250X: Final = (4, 5, 2, 3, 6, 7, 0, 1)

# Entry i is the GPU of the rank whose cores are the i-th block of the node's cores.
# Frontier and LUMI: cores 0-7 are next to die 4, 8-15 to 5, 16-23 to 2, ... (OLCF Frontier User Guide, "NUMA"; LUMI
# documentation, "Distribution and binding"). Polaris: reversed (ALCF, set_affinity_gpu_polaris.sh: "need to assign
# GPUs in reverse order due to topology").
MAPS: Final[dict[str, tuple[int, ...]]] = {"frontier": _MI250X, "lumi": _MI250X, "polaris": (3, 2, 1, 0)}

# Where a site writes its name: Slurm's cluster, Lmod's system, PBS's submitting host.
_SITE_VARIABLES: Final = ("SLURM_CLUSTER_NAME", "LMOD_SYSTEM_NAME", "PBS_O_HOST")


def parse_map(text: str) -> tuple[int, ...]:
    """Return the GPU of every local rank; numbers apart by commas or spaces, the same for ranks that share one.

    Raises:
        InputError: something else.
    """
    words = text.replace(",", " ").split()
    if not words or not all(word.isascii() and word.isdecimal() and len(word) < 6 for word in words):
        raise InputError(f"GPU map {text!r} is not a list of GPU numbers, one for each rank of a node: 4,5,2,3,6,7,0,1")
    return tuple(int(word) for word in words)


def spread_map(gpu_map: Sequence[int], num_ranks: int) -> tuple[int, ...]:
    """Return a machine's map for another number of ranks a node: the GPU next to each rank's first core."""
    return tuple(gpu_map[rank * len(gpu_map) // num_ranks] for rank in range(num_ranks))


def site_map(environ: Mapping[str, str]) -> tuple[str, tuple[int, ...]] | None:
    """Return the site that this process runs at and its map, or None where neither is known."""
    for variable in _SITE_VARIABLES:
        value = environ.get(variable, "").lower()
        for site, gpu_map in MAPS.items():
            if value == site or value.startswith((f"{site}-", f"{site}.")):
                return site, gpu_map
    return None


def visible_variable(dev: Path = Path("/dev")) -> str:
    """Return the variable that limits and orders GPUs here: ROCm's where its driver is, else CUDA's."""
    amd = (dev / "kfd").exists() and not (dev / "nvidiactl").exists()
    return "ROCR_VISIBLE_DEVICES" if amd else "CUDA_VISIBLE_DEVICES"


def visible_gpus(environ: Mapping[str, str], variable: str) -> list[str] | None:
    """Return the GPUs that `variable` leaves, as it names them, or None where it is not set.

    As CUDA reads it: everything after the first name that is none, such as -1, is hidden.
    """
    if variable not in environ:
        return None
    names = []
    for name in environ[variable].split(","):
        name = name.strip()
        if not name or name.startswith("-") or name == "NoDevFiles":
            break
        names.append(name)
    return names


def count_gpus(dev: Path = Path("/dev"), sys: Path = Path("/sys")) -> int:
    """Count the GPUs of this node without starting a driver: device files of NVIDIA's, nodes of AMD's."""
    nvidia = sum(1 for file in dev.glob("nvidia[0-9]*") if file.name[6:].isdecimal())
    return nvidia or sum(map(_has_simds, (sys / "class/kfd/kfd/topology/nodes").glob("*/properties")))


def _has_simds(properties: Path) -> bool:
    try:
        words = properties.read_text().split()
    except OSError:
        return False
    return dict(zip(words[::2], words[1::2], strict=False)).get("simd_count", "0") != "0"


def choose_gpu(names: Sequence[str], local_rank: int, gpu_map: Sequence[int] | None, *, must_fit: bool) -> int | None:
    """Return which of the visible GPUs belongs to a rank, or None where there is none.

    Args:
        names: the visible GPUs.
        local_rank: of the rank; more ranks than GPUs share them in turn.
        gpu_map: GPU of every local rank, or None for their own order.
        must_fit: whether a map of more GPUs than are visible is an error; else it is not used.

    Raises:
        InputError: the map names a GPU that is not visible.
    """
    if not names:
        return None
    if gpu_map is None or len(names) == 1:  # a launcher that shows each rank one GPU has chosen
        return local_rank % len(names)
    if max(gpu_map) >= len(names):
        if must_fit:
            raise InputError(
                f"GPU map {','.join(map(str, gpu_map))} names GPU {max(gpu_map)}, but this rank sees {len(names)}; "
                "show all GPUs of the node to every rank, or give a map of those that are visible"
            )
        return local_rank % len(names)
    return gpu_map[local_rank % len(gpu_map)]


def own_first(names: Sequence[str], own: int) -> str:
    """Return the GPUs with a rank's own first: its device 0, while it can still reach the memory of the others."""
    return ",".join([names[own], *(name for index, name in enumerate(names) if index != own)])


def cuda_is_running() -> bool:
    """Say whether this process has started CUDA or ROCm, after which the choice of GPUs has no effect any more."""
    try:
        handles = list(Path("/proc/self/fd").iterdir())
    except OSError:
        return False
    return any(_target(handle).startswith(("/dev/nvidia-uvm", "/dev/kfd")) for handle in handles)


def _target(handle: Path) -> str:
    try:
        return os.readlink(handle)
    except OSError:
        return ""
