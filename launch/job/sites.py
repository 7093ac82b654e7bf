"""Launch presets: what a site's own pages say that its jobs need."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from sparsecomm.errors import InputError
from sparsecomm.launch.gpu_map import MAPS


@dataclass(frozen=True, slots=True)
class Site:
    """A machine, or a kind of machines, to start jobs on.

    Args:
        title: for people.
        launcher: and `scheduler`: what it has.
        ranks_per_node: one a GPU where there are GPUs.
        gpus_per_node: that a job may use.
        cores_per_node: hardware threads that a job may use, or None where it is not known.
        threads_per_core: hardware threads of a core that count in `cores_per_node`.
        cpu_masks: cores of the ranks of a full node, where counting from the first core would not do.
        gpu_map: GPU of every local rank, or None for their own order.
        environment: that the machine needs.
        queue: that GPU jobs go to where one does not ask, or None.
        queue_option: what Slurm calls it.
        resources: added to PBS's `select`.
        directives: that every job there has.
        wants: options without which the site refuses jobs.
    """

    title: str
    launcher: str
    scheduler: str
    ranks_per_node: int = 1
    gpus_per_node: int = 0
    cores_per_node: int | None = None
    threads_per_core: int = 1
    cpu_masks: str = ""
    gpu_map: tuple[int, ...] | None = None
    environment: dict[str, str] = field(default_factory=dict)
    queue: str | None = None
    queue_option: str = "partition"
    resources: str = ""
    directives: tuple[str, ...] = ()
    wants: tuple[str, ...] = ()


# jsrun -r6 -a1 -g1 -c7 --smpiargs="-gpu" and the variables of Spectrum MPI that stripe messages over both rails:
# from the runs behind the Bisection_Bandwidth_Tester's chart. 42 of 44 cores are for jobs (OLCF Summit User Guide).
_SUMMIT: Final = Site(
    "Summit (switched off in November 2024)",
    "jsrun",
    "lsf",
    ranks_per_node=6,
    gpus_per_node=6,
    cores_per_node=42,
    environment={
        "PAMI_ENABLE_STRIPING": "1",
        "PAMI_IBV_ADAPTER_AFFINITY": "1",
        "PAMI_IBV_DEVICE_NAME": "mlx5_0:1,mlx5_3:1",
        "PAMI_IBV_DEVICE_NAME_1": "mlx5_3:1,mlx5_0:1",
    },
    wants=("account", "time"),
)

# Slurm keeps the first core of every block of eight to itself: 56 of 64 (OLCF Frontier User Guide, "Low-noise mode").
_FRONTIER: Final = Site(
    "Frontier",
    "srun",
    "slurm",
    ranks_per_node=8,
    gpus_per_node=8,
    cores_per_node=56,
    gpu_map=MAPS["frontier"],
    queue="batch",
    wants=("account", "time"),
)

# 64 cores of 2 threads, all of which Slurm counts; GPU jobs say so by a constraint, and name a QOS instead of a
# partition (NERSC documentation, "Running Jobs on Perlmutter").
_PERLMUTTER: Final = Site(
    "Perlmutter, GPU nodes",
    "srun",
    "slurm",
    ranks_per_node=4,
    gpus_per_node=4,
    cores_per_node=128,
    threads_per_core=2,
    queue="regular",
    queue_option="qos",
    directives=("--constraint=gpu",),
    wants=("account", "time"),
)

# 32 cores; one rank a GPU has depth 8 (ALCF user guides, "Example job scripts"). Jobs must name their file systems.
_POLARIS: Final = Site(
    "Polaris",
    "pals",
    "pbs",
    ranks_per_node=4,
    gpus_per_node=4,
    cores_per_node=32,
    gpu_map=MAPS["polaris"],
    resources=":system=polaris",
    directives=("-l place=scatter", "-l filesystems=home:eagle"),
    wants=("account", "queue", "time"),
)

# As Frontier's node; the masks leave out the first core of every block, which is not for jobs, and put rank i on
# block i (LUMI documentation, "LUMI-G example batch scripts" and "Distribution and binding").
_LUMI: Final = Site(
    "LUMI, GPU nodes",
    "srun",
    "slurm",
    ranks_per_node=8,
    gpus_per_node=8,
    cores_per_node=56,
    cpu_masks="mask_cpu:" + ",".join(f"0x{0xFE << (8 * block):x}" for block in range(8)),
    gpu_map=MAPS["lumi"],
    queue="standard-g",
    wants=("account", "time"),
)

# Two Xeon 8480C of 56 cores (NVIDIA DGX H100 User Guide).
_DGX: Final = Site("DGX H100 under Slurm", "srun", "slurm", ranks_per_node=8, gpus_per_node=8, cores_per_node=112)

SITES: Final[dict[str, Site]] = {
    "summit": _SUMMIT,
    "frontier": _FRONTIER,
    "perlmutter": _PERLMUTTER,
    "polaris": _POLARIS,
    "lumi": _LUMI,
    "dgx": _DGX,
    "slurm": Site("a Slurm cluster", "srun", "slurm"),
    "lsf": Site("an LSF cluster with jsrun", "jsrun", "lsf"),
    "flux": Site("a Flux cluster", "flux", "flux"),
    "pbs": Site("a PBS cluster with PALS", "pals", "pbs"),
    "mpirun": Site("mpiexec of MPICH or Intel MPI", "hydra", "none"),
    "openmpi": Site("mpirun of Open MPI", "openmpi", "none"),
}


def get_site(name: str) -> Site:
    """Return a launch preset.

    Raises:
        InputError: there is none of that name.
    """
    if name not in SITES:
        raise InputError(f"no launch preset {name!r}; give one of {', '.join(SITES)}")
    return SITES[name]
