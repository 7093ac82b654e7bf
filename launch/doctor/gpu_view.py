"""Which GPUs a rank sees and which one would be its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sparsecomm.errors import SparseCommError
from sparsecomm.launch.gpu_map import visible_gpus, visible_variable
from sparsecomm.launch.machine.gpus import Gpus
from sparsecomm.launch.startup import take_gpu
from sparsecomm.launch.world import Place


@dataclass(frozen=True, slots=True)
class GpuView:
    """The GPUs of a node as one rank sees them.

    Args:
        driver: GPUs that the driver shows to this process.
        visible: names in the variable that limits and orders GPUs, or None where it is not set.
        own: the GPU that `sparsecomm.launch.init()` gives the rank, as that variable names it, or None.
        why_none: why the map of GPUs cannot be used, or empty.
    """

    driver: Gpus
    visible: tuple[str, ...] | None = None
    own: str | None = None
    why_none: str = ""

    @property
    def seen(self) -> tuple[str, ...]:
        """UUIDs of the GPUs that CUDA shows to this process, in its order; the name where it has no UUID."""
        uuids = {str(gpu.index): gpu.uuid for gpu in self.driver.found}
        if self.visible is None:
            return tuple(uuids.values())
        return tuple(self.uuid_of(name) for name in self.visible)

    @property
    def own_uuid(self) -> str | None:
        return None if self.own is None else self.uuid_of(self.own)

    def uuid_of(self, name: str) -> str:
        """Return the UUID of a GPU named as the variable does: a number or the beginning of a UUID."""
        for gpu in self.driver.found:
            if name == str(gpu.index) or (not name.isdecimal() and gpu.uuid.startswith(name)):
                return gpu.uuid
        return name


def find_view(driver: Gpus, place: Place | None, environ: Mapping[str, str]) -> GpuView:
    """Return what this process sees; nothing is set."""
    names = visible_gpus(environ, visible_variable())
    visible = None if names is None else tuple(names)
    local = (0, 1) if place is None else (place.local_rank, place.local_size or 1)
    if local[0] is None:  # the launcher does not say where on the node this rank is
        return GpuView(driver, visible)
    try:
        own, _ = take_gpu(dict(environ), local[0], local[1], None, None)
    except SparseCommError as err:
        return GpuView(driver, visible, why_none=str(err))
    return GpuView(driver, visible, own)
