"""Zero-argument start: where this process stands in its job, and which GPU is its own."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sparsecomm.errors import InputError, LaunchError
from sparsecomm.launch.gpu_map import (
    VARIABLE,
    choose_gpu,
    count_gpus,
    cuda_is_running,
    own_first,
    parse_map,
    site_map,
    spread_map,
    visible_gpus,
    visible_variable,
)
from sparsecomm.launch.world import Place, find_place

if TYPE_CHECKING:
    from mpi4py import MPI

_LOG: Final = logging.getLogger("sparsecomm")
_SITE: Final = "by the map of "
_ALONE: Final = Place("no launcher", 1, 0, 0, 1, "")


@dataclass(frozen=True, slots=True)
class Job:
    """A process and its place in the job.

    Args:
        launcher: what started it, as people call it.
        size: number of ranks.
        rank: of this process.
        local_rank: its number on its node.
        local_size: ranks on its node.
        gpu: its GPU, as `CUDA_VISIBLE_DEVICES` names it (a number or a UUID), or None. In this process it is device 0.

    Example:
        >>> Job("no launcher", size=1, rank=0, local_rank=0, local_size=1, gpu=None).local_rank
        0
    """

    launcher: str
    size: int
    rank: int
    local_rank: int
    local_size: int
    gpu: str | None

    @property
    def comm(self) -> MPI.Intracomm:
        """The world; asking for it starts MPI.

        Raises:
            LaunchError: the launcher started several processes, but each is a job of its own.
        """
        from mpi4py import MPI

        from sparsecomm.collectives.transport.world import check_world

        check_world(MPI.COMM_WORLD.size, os.environ)
        if MPI.COMM_WORLD.size != self.size:
            raise LaunchError(
                f"{self.launcher} started {self.size} processes, but MPI sees {MPI.COMM_WORLD.size}; start them with "
                "the mpiexec that belongs to the MPI library of this Python environment"
            )
        return MPI.COMM_WORLD


def init(
    *,
    gpu: int | str | None = None,
    gpu_map: Sequence[int] | str | None = None,
    environ: MutableMapping[str, str] = os.environ,
) -> Job:
    """Find launcher, rank and GPU, make the GPU this process's first, and say so in one line on rank 0.

    Call it before anything starts CUDA. The other GPUs of the node stay visible behind the own one, because ranks
    that cannot see each other's GPUs cannot read each other's GPU memory.

    Args:
        gpu: use this one of the visible GPUs (a number counts from 0; text is a UUID), whatever map there is.
        gpu_map: GPU of every local rank; else the variable SPARSECOMM_GPU_MAP, else what is known of this site,
            else GPUs in their own order.
        environ: of the process; `CUDA_VISIBLE_DEVICES` is written to it.

    Raises:
        InputError: the GPU or the map does not fit what is visible.
        LaunchError: CUDA is running already and uses another GPU.

    Note: Collective over the world where the launcher does not give local ranks, or MPI has been started.
    """
    place = _settle(find_place(environ) or _ALONE)
    local_rank, local_size = place.local_rank or 0, place.local_size or 1
    name, why = take_gpu(environ, local_rank, local_size, gpu, gpu_map)
    if gpu is None and name is not None and local_size > len(visible_gpus(environ, visible_variable()) or [name]):
        why += ", which ranks of this node share"
    job = Job(place.launcher, place.size, place.rank, local_rank, local_size, name)
    if job.rank == 0:
        _say(job, why)
    return job


def _settle(place: Place) -> Place:
    """Complete a place with what MPI knows: once it is started it is right, and some launchers do not say all."""
    started = "mpi4py.MPI" in sys.modules
    if place.local_rank is not None and place.local_size is not None and not started:
        return place
    from mpi4py import MPI

    if not MPI.Is_initialized() or MPI.COMM_WORLD.size == 1 != place.size:  # pieces: `comm` refuses, doctor explains
        return place
    shared = MPI.COMM_WORLD.Split_type(MPI.COMM_TYPE_SHARED)
    local_rank, local_size = shared.rank, shared.size
    shared.Free()
    return Place(place.launcher, MPI.COMM_WORLD.size, MPI.COMM_WORLD.rank, local_rank, local_size, place.variable)


def take_gpu(
    environ: MutableMapping[str, str],
    local_rank: int,
    local_size: int,
    gpu: int | str | None,
    gpu_map: Sequence[int] | str | None,
) -> tuple[str | None, str]:
    """Make the rank's GPU its first and return its name, or None, and who decided.

    Args:
        environ: `CUDA_VISIBLE_DEVICES` is written to it.
        local_rank: number of the rank on its node.
        local_size: ranks on its node.
        gpu: as for `init`.
        gpu_map: as for `init`.

    Raises:
        InputError: the GPU or the map does not fit what is visible.
        LaunchError: CUDA is running already and uses another GPU.
    """
    variable = visible_variable()
    names = visible_gpus(environ, variable)
    if names is None:
        names = [str(number) for number in range(count_gpus())]
    order, why = _find_map(environ, local_size, gpu_map)
    if gpu is not None:
        own, why = _index_of(gpu, names), "as asked"
    else:
        chosen = choose_gpu(names, local_rank, order, must_fit=not why.startswith(_SITE))
        if chosen is None:
            return None, ""
        own = chosen
    wanted = own_first(names, own)
    if wanted != environ.get(variable, ",".join(names)):
        _check_time(variable)
        environ[variable] = wanted
    return names[own], why


def _find_map(
    environ: MutableMapping[str, str], local_size: int, gpu_map: Sequence[int] | str | None
) -> tuple[tuple[int, ...] | None, str]:
    """Return the map to use and where it is from: the argument, the variable, the site, or none."""
    if gpu_map is not None:
        return parse_map(gpu_map if isinstance(gpu_map, str) else ",".join(map(str, gpu_map))), "by the map given"
    if environ.get(VARIABLE):
        return parse_map(environ[VARIABLE]), f"by {VARIABLE}"
    site = site_map(environ)
    return (spread_map(site[1], local_size), f"{_SITE}{site[0]}") if site else (None, "in order")


def _index_of(gpu: int | str, names: Sequence[str]) -> int:
    if isinstance(gpu, str):
        if gpu in names:
            return names.index(gpu)
    elif 0 <= gpu < len(names):
        return gpu
    seen = f"{len(names)} are visible: {', '.join(names)}" if names else "no GPU is visible"
    raise InputError(f"GPU {gpu!r} cannot be used: {seen}")


def _check_time(variable: str) -> None:
    if cuda_is_running():
        raise LaunchError(
            f"CUDA is running in this process, so that {variable} has no effect any more; "
            "call sparsecomm.launch.init() before anything that uses the GPU"
        )


def _say(job: Job, why: str) -> None:
    """Say in one line what was found: to the log where someone listens, else to standard error."""
    gpu = "no GPU" if job.gpu is None else f"GPU {job.gpu} ({why})"
    ranks = "1 rank" if job.size == 1 else f"{job.size} ranks, {job.local_size} on this node"
    text = f"{job.launcher}: {ranks}; rank 0 has {gpu}"
    if _LOG.isEnabledFor(logging.INFO) and _LOG.hasHandlers():
        _LOG.info(text)
    else:
        print(f"sparsecomm: {text}", file=sys.stderr, flush=True)
