"""Findings about MPI: is there one, does it start, does it belong to the launcher."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sparsecomm.launch.doctor.facts import Facts
from sparsecomm.launch.doctor.finding import ERROR, NOTE, WARNING, Finding
from sparsecomm.launch.mpiexec import fits, parse_library

_INSTALL: Final = (
    "pip install 'sparsecomm[mpi]'; on a cluster load the site's MPI module, then pip install 'sparsecomm[site-mpi]'"
)
_SRUN: Final = (
    "choose a PMI that this MPI library speaks: `srun --mpi=list`, then `srun --mpi=pmix` (Open MPI) or "
    "`srun --mpi=pmi2` (MPICH, Intel MPI)"
)


def check_mpi(facts: Facts) -> Iterator[Finding]:
    """Yield what is wrong with MPI."""
    yield from check_start(facts)
    yield from check_launchers(facts)
    yield from check_wheels(facts)
    yield from check_root(facts)
    yield from check_slurm(facts)


def check_start(facts: Facts) -> Iterator[Finding]:
    """Yield why the job is not the one that was started: at most one reason."""
    first, world = facts.first, facts.world
    in_job = facts.num_started > 1
    if not first.software.version("mpi4py"):
        yield Finding("no mpi4py", ERROR if in_job else WARNING, "without mpi4py a process is always alone", _INSTALL)
    elif not world.library:
        yield Finding(
            "no MPI library", ERROR if in_job else WARNING, f"mpi4py cannot load one: {world.error}", _INSTALL
        )
    elif in_job and not fits(_launcher_family(facts), world.family):
        yield Finding("foreign launcher", ERROR, f"{_started(facts)}, {_outcome(facts)}", _own_launcher(facts))
    elif world.size is None:
        cure = _cure(facts) if in_job else f"reinstall MPI: {_INSTALL}"
        yield Finding("MPI does not start", ERROR, f"{world.name}: {world.error}", cure)
    elif world.size != facts.num_started:
        yield Finding("job in pieces", ERROR, f"{_started(facts)}, {_outcome(facts)}", _cure(facts))


def check_launchers(facts: Facts) -> Iterator[Finding]:
    """Yield what is wrong with the mpiexec that one would type."""
    software, family = facts.first.software, facts.world.family
    own, typed = software.mpiexec, software.on_path
    if not facts.world.library or facts.num_started > 1:
        return
    if own is None:
        text = "there is no mpiexec beside Python or on the path, so that no ranks can be started from here"
        yield Finding("no mpiexec", WARNING, text, "on a cluster use srun or the site's launcher; else " + _INSTALL)
    elif not fits(own.family, family):
        text = f"{own} does not start jobs of {facts.world.name}"
        yield Finding("foreign mpiexec", ERROR, text, _own_launcher(facts))
    elif typed is not None and not fits(typed.family, family):
        text = f"the first mpiexec on the path is {typed}, but the MPI library is {facts.world.name}"
        yield Finding("foreign mpiexec on the path", WARNING, text, f"type {own.path}")


def check_wheels(facts: Facts) -> Iterator[Finding]:
    """Yield a second MPI in the Python environment: which one mpi4py loads is then chance."""
    wheels = [f"{name} {version}" for name, version in facts.first.software.mpi_wheels]
    if len(wheels) > 1:
        names = [name for name, _ in facts.first.software.mpi_wheels]
        text = f"{' and '.join(wheels)} are in one environment; mpi4py loads {facts.world.name or 'neither'}"
        cure = f"pip uninstall all but one ({' '.join(names)}), then install that one again: they share file names"
        yield Finding("two MPI wheels", WARNING, text, cure)


def check_root(facts: Facts) -> Iterator[Finding]:
    """Yield that mpirun of Open MPI refuses to start jobs of root."""
    first = facts.first
    allowed = all(first.variable(f"OMPI_ALLOW_RUN_AS_ROOT{end}") == "1" for end in ("", "_CONFIRM"))
    if first.software.is_root and facts.world.family == "Open MPI" and facts.num_started == 1 and not allowed:
        text = "the user is root, for whom mpirun of Open MPI starts nothing; `sparsecomm spmm -n` allows it by itself"
        cure = "export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1, or be another user"
        yield Finding("Open MPI as root", WARNING, text, cure)


def check_slurm(facts: Facts) -> Iterator[Finding]:
    """Yield that this is a batch script, where plain commands are alone."""
    first = facts.first
    if first.variable("SLURM_JOB_ID") and not first.variable("SLURM_STEP_ID") and facts.num_started == 1:
        text = f"this process is in allocation {first.variable('SLURM_JOB_ID')} of Slurm, but not in a step of it"
        yield Finding("no Slurm step", NOTE, text, "start ranks with srun, for example `srun -n 2 sparsecomm doctor`")


def match(facts: Facts) -> str:
    """Say whether the launcher, in a job, or the mpiexec, outside one, belongs to the library."""
    if facts.num_started > 1:
        family, works = _launcher_family(facts), facts.world.size == facts.num_started
    else:
        family, works = facts.first.software.mpiexec.family if facts.first.software.mpiexec else "", False
    if works:
        return "yes"
    if not family or not facts.world.family:
        return "no" if facts.num_started > 1 else "not known"
    return "yes" if fits(family, facts.world.family) else "no"


def _launcher_family(facts: Facts) -> str:
    """Return the MPI that the launcher of this job belongs to, or nothing for srun and its like."""
    name = facts.first.place.launcher if facts.first.place else ""
    return parse_library(name)[0]


def _started(facts: Facts) -> str:
    place = facts.first.place
    if place is None:
        return "no launcher started this process"
    return f"{place.launcher} started {place.size} processes ({place.variable}={place.size})"


def _outcome(facts: Facts) -> str:
    world = facts.world
    if world.size is None:
        return f"but the MPI library is {world.name}, which ended: {world.error}"
    if world.size == 1:
        return f"but the MPI library, {world.name}, sees a job of 1: they do not know of each other"
    return f"but the MPI library, {world.name}, sees a job of {world.size}"


def _cure(facts: Facts) -> str:
    place = facts.first.place
    if place is None:
        return "start sparsecomm without variables of a launcher"
    if place.launcher == "srun":
        return f"{_SRUN}, or start with {_own_path(facts)}"
    return _own_launcher(facts)


def _own_launcher(facts: Facts) -> str:
    return f"start with the launcher of the MPI library of this Python environment: {_own_path(facts)}"


def _own_path(facts: Facts) -> str:
    software, family = facts.first.software, facts.world.family
    beside = str(Path(software.executable).parent / "mpiexec")
    for found in (software.mpiexec, software.on_path):
        if found is not None and fits(found.family, family):
            return f"{found.path} -n {max(facts.num_started, 2)} sparsecomm doctor"
    return f"{beside} (missing: {_INSTALL})"
