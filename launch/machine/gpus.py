"""GPUs of this node and how they are linked, from the driver; nothing here starts CUDA."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Final

_QUERY: Final = "index,uuid,name,pci.bus_id,memory.total"
_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU that the driver shows to this process; `CUDA_VISIBLE_DEVICES` does not matter here.

    Args:
        index: as the driver counts.
        uuid: the same on every rank of the node.
        name: of the product.
        bus: PCI address.
        memory_bytes: of the device.
        numa: NUMA node that it hangs on, or None.
        nvlinks: indexes of the GPUs that it reaches over NVLink.
        peers: indexes of the GPUs whose memory it can read.
    """

    index: int
    uuid: str
    name: str
    bus: str
    memory_bytes: int
    numa: int | None = None
    nvlinks: tuple[int, ...] = ()
    peers: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Gpus:
    """What was found and by what.

    Args:
        found: the GPUs.
        source: `nvidia-ml-py`, `nvidia-smi`, or why nothing could be asked.
        driver: version of the driver, or empty.
        linked: whether `nvlinks` and `peers` are known; nvidia-smi does not tell them.
        num_devices: GPUs of the node that the kernel driver knows, also those hidden from this process, or None.
    """

    found: tuple[Gpu, ...]
    source: str
    driver: str = ""
    linked: bool = False
    num_devices: int | None = field(default=None)

    def islands(self) -> list[list[int]]:
        """Return the groups of GPUs that NVLink connects, directly or through others; a lone GPU is one too."""
        links = {gpu.index: set(gpu.nvlinks) for gpu in self.found}
        islands: list[list[int]] = []
        seen: set[int] = set()
        for index in sorted(links):
            if index not in seen:
                islands.append(sorted(_reach(index, links)))
                seen |= set(islands[-1])
        return islands


def _reach(start: int, links: dict[int, set[int]]) -> set[int]:
    reached, border = {start}, {start}
    while border:
        border = {other for index in border for other in links.get(index, ())} - reached
        reached |= border
    return reached


def find_gpus() -> Gpus:
    """Ask nvidia-ml-py, else nvidia-smi; where neither is, say so."""
    try:
        return _ask_nvml(import_module("pynvml"))
    except ImportError:
        return _ask_smi()


def _ask_nvml(nvml: Any) -> Gpus:
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as err:
        return Gpus((), f"nvidia-ml-py: {err}", num_devices=_num_devices())
    try:
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        found = tuple(_describe(nvml, index, handles) for index in range(len(handles)))
        return Gpus(found, "nvidia-ml-py", _text(nvml.nvmlSystemGetDriverVersion()), True, _num_devices())
    except nvml.NVMLError as err:
        return Gpus((), f"nvidia-ml-py: {err}", num_devices=_num_devices())
    finally:
        nvml.nvmlShutdown()


def _describe(nvml: Any, index: int, handles: Sequence[Any]) -> Gpu:
    handle = handles[index]
    bus = _text(nvml.nvmlDeviceGetPciInfo(handle).busId)
    return Gpu(
        index,
        _text(nvml.nvmlDeviceGetUUID(handle)),
        _text(nvml.nvmlDeviceGetName(handle)),
        bus,
        int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
        _numa(bus),
        _reached(nvml, index, handles, nvml.NVML_P2P_CAPS_INDEX_NVLINK),
        _reached(nvml, index, handles, nvml.NVML_P2P_CAPS_INDEX_READ),
    )


def _reached(nvml: Any, index: int, handles: Sequence[Any], capability: int) -> tuple[int, ...]:
    def can(other: int) -> bool:
        try:
            status = nvml.nvmlDeviceGetP2PStatus(handles[index], handles[other], capability)
        except nvml.NVMLError:
            return False
        return bool(status == nvml.NVML_P2P_STATUS_OK)

    return tuple(other for other in range(len(handles)) if other != index and can(other))


def _ask_smi() -> Gpus:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return Gpus((), "neither nvidia-ml-py nor nvidia-smi is here", num_devices=_num_devices())
    command = [tool, f"--query-gpu={_QUERY},driver_version", "--format=csv,noheader,nounits"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as err:
        return Gpus((), f"nvidia-smi: {err}", num_devices=_num_devices())
    if run.returncode:
        words = (run.stdout + run.stderr).strip().splitlines()
        return Gpus(
            (), f"nvidia-smi: {words[0] if words else f'exit code {run.returncode}'}", num_devices=_num_devices()
        )
    return parse_smi(run.stdout)


def parse_smi(text: str) -> Gpus:
    """Return what nvidia-smi printed, one line a GPU; lines in another form are left out."""
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines()]
    rows = [row for row in rows if len(row) == 6 and row[0].isdecimal()]
    found = tuple(
        Gpu(int(index), uuid, name, bus, int(mib) * _MIB if mib.isdecimal() else 0, _numa(bus))
        for index, uuid, name, bus, mib, _ in rows
    )
    return Gpus(found, "nvidia-smi", rows[0][5] if rows else "", num_devices=_num_devices())


def _num_devices() -> int | None:
    """Count the GPUs that the kernel driver knows: a control group hides devices, but not these folders."""
    folder = Path("/proc/driver/nvidia/gpus")
    return len(list(folder.iterdir())) if folder.is_dir() else None


def _numa(bus: str) -> int | None:
    """Return the NUMA node of a PCI device; the driver gives eight digits of a domain, /sys four."""
    address = bus.lower().rpartition(":")[0].rpartition(":")
    device = f"{address[0][-4:]}:{address[2]}:{bus.lower().rpartition(':')[2]}"
    try:
        number = int(Path("/sys/bus/pci/devices", device, "numa_node").read_text())
    except (OSError, ValueError):
        return None
    return number if number >= 0 else None


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
