"""From a launch preset and what the user asked to a job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sparsecomm.errors import InputError
from sparsecomm.launch.gpu_map import VARIABLE, spread_map
from sparsecomm.launch.job.sites import Site, get_site
from sparsecomm.launch.job.spec import LAUNCHERS, JobSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the user asked; None and empty leave it to the preset. For the fields see `JobSpec`."""

    preset: str
    num_nodes: int
    command: Sequence[str]
    launcher: str | None = None
    scheduler: str | None = None
    ranks_per_node: int | None = None
    gpus_per_node: int | None = None
    cores_per_rank: int | None = None
    bind: bool = True
    environment: Mapping[str, str] | None = None
    seconds: int | None = None
    account: str | None = None
    queue: str | None = None
    name: str | None = None
    directives: Sequence[str] = ()
    options: Sequence[str] = ()
    hostfile: str | None = None
    modules: Sequence[str] = ()
    venv: str | None = None


def make_spec(asked: Asked) -> JobSpec:
    """Return the job that a preset makes of what was asked.

    Raises:
        InputError: it cannot be, with what can.
    """
    site = get_site(asked.preset)
    launcher = asked.launcher or _default_launcher(site, asked.scheduler)
    scheduler = asked.scheduler or LAUNCHERS.get(launcher) or site.scheduler
    at_home = scheduler == site.scheduler
    ranks = site.ranks_per_node if asked.ranks_per_node is None else asked.ranks_per_node
    gpus = site.gpus_per_node if asked.gpus_per_node is None else asked.gpus_per_node
    cores = asked.cores_per_rank or _cores(site, ranks)
    _check_node(site, ranks, gpus, cores)
    return JobSpec(
        title=asked.preset,
        launcher=launcher,
        scheduler=scheduler,
        num_nodes=asked.num_nodes,
        ranks_per_node=ranks,
        gpus_per_node=gpus,
        cores_per_rank=cores,
        bind=asked.bind,
        cpu_masks=site.cpu_masks if ranks == site.ranks_per_node and cores == _cores(site, ranks) else "",
        environment={**_environment(site, ranks, gpus, cores), **(asked.environment or {})},
        seconds=asked.seconds,
        account=asked.account,
        queue=asked.queue if asked.queue is not None or not at_home else site.queue,
        queue_option=site.queue_option,
        name=asked.name,
        resources=site.resources if at_home else "",
        directives=(*(site.directives if at_home else ()), *asked.directives),
        options=tuple(asked.options),
        hostfile=asked.hostfile,
        modules=tuple(asked.modules),
        venv=asked.venv,
        command=tuple(asked.command),
    )


def missing(asked: Asked) -> list[str]:
    """Return the options without which the site's scheduler refuses the job."""
    given = {"account": asked.account, "queue": asked.queue, "time": asked.seconds}
    return [f"--{option}" for option in get_site(asked.preset).wants if given[option] is None]


def _default_launcher(site: Site, scheduler: str | None) -> str:
    """Return the site's launcher, or where another scheduler was asked for, that scheduler's own."""
    if scheduler in (None, "none", site.scheduler) or LAUNCHERS.get(site.launcher) == "":
        return site.launcher
    return next((name for name, home in LAUNCHERS.items() if home == scheduler), site.launcher)


def _cores(site: Site, ranks: int) -> int | None:
    """Return an equal share of the node's hardware threads, or None where it is not known."""
    return None if site.cores_per_node is None or ranks < 1 else site.cores_per_node // ranks or None


def _check_node(site: Site, ranks: int, gpus: int, cores: int | None) -> None:
    """Refuse what a node of the site does not have."""
    have = site.cores_per_node
    if have is not None and ranks * (cores or 1) > have:
        raise InputError(
            f"{ranks} ranks of {cores or 1} cores need {ranks * (cores or 1)}, but a node of {site.title} has {have} "
            "for jobs; give smaller --ranks-per-node or --cores-per-rank"
        )
    if have is not None and gpus > site.gpus_per_node:
        raise InputError(f"--gpus-per-node {gpus}: a node of {site.title} has {site.gpus_per_node}")


def _environment(site: Site, ranks: int, gpus: int, cores: int | None) -> dict[str, str]:
    """Return the site's own variables, threads for each rank's cores, and the GPU map."""
    environment = dict(site.environment)
    if cores is not None:
        threads = str(max(1, cores // site.threads_per_core))
        environment |= {"OMP_NUM_THREADS": threads, "NUMBA_NUM_THREADS": threads}
    if site.gpu_map is not None and gpus == site.gpus_per_node and ranks >= 1:
        environment[VARIABLE] = ",".join(map(str, spread_map(site.gpu_map, ranks)))
    return environment
