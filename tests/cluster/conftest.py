"""Clusters for tests: names and folders of their own, removed whatever happens, skipped by name where none can be."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from sparsecomm.launch.cluster.tools import is_privileged, missing_tools
from tests.jobs import BIN, Job, run

# What the kernel must be able to do, tried in a network of its own that is gone at the end.
_PROBE = """
ip link add probe0 type bridge && ip link add probe1 type veth peer name probe2 &&
tc qdisc add dev probe1 root tbf rate 1gbit burst 512kb latency 100ms && mount -t tmpfs tmpfs /dev/shm
"""


class Clusters:
    """The command `sparsecomm cluster` for one cluster."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.env = {"SPARSECOMM_CLUSTER_STATE": str(folder)}
        self.folder = folder / name

    def command(self, action: str, *arguments: str) -> list[str]:
        return [str(BIN["mpich"] / "sparsecomm"), "cluster", action, "--name", self.name, *arguments]

    def call(self, action: str, *arguments: str, timeout: float = 200.0) -> Job:
        return run(self.command(action, *arguments), timeout=timeout, env=self.env)

    def up(self, *arguments: str) -> Job:
        job = self.call("up", *arguments)
        assert job.rc == 0, job
        return job

    def run(self, command: Sequence[str], *options: str, timeout: float = 200.0) -> Job:
        """Run a command on all ranks; after `timeout` seconds it is ended from inside, then from outside."""
        words = ["--timeout", str(timeout), *options, "--", *command]
        return self.call("run", *words, timeout=timeout + 30)

    def namespaces(self) -> set[str]:
        """Return the namespaces of this cluster that exist, by the last part of their names."""
        prefix = f"sparsecomm-{self.name}-"
        return {name.removeprefix(prefix) for name in netns() if name.startswith(prefix)}


def netns() -> list[str]:
    listing = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, timeout=200, env=system_env())
    return [line.split()[0] for line in listing.stdout.splitlines()]


def system_env() -> dict[str, str]:
    return {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)


@pytest.fixture(scope="session")
def machine() -> None:
    """Skip where no cluster can be made, and say why."""
    if not is_privileged():
        pytest.skip("a virtual cluster needs root (CAP_NET_ADMIN and CAP_SYS_ADMIN)")
    _skip_without(slurm=False)
    probe = ["unshare", "--net", "--mount", "--uts", "sh", "-c", _PROBE]
    done = subprocess.run(probe, capture_output=True, text=True, timeout=200, env=system_env())
    if done.returncode:
        pytest.skip(f"this kernel or container can make no virtual cluster: {done.stderr.strip()}")


@pytest.fixture(scope="session")
def slurm(machine: None) -> None:
    """Skip where Slurm is not installed."""
    _skip_without(slurm=True)


def _skip_without(*, slurm: bool) -> None:
    if missing := missing_tools(slurm=slurm):
        pytest.skip(f"not installed: {', '.join(missing)}; as root: sparsecomm cluster packages | sh")


@pytest.fixture
def fresh(machine: None) -> Iterator[Clusters]:
    """A cluster that is not there yet, for the tests of `up` and `down`."""
    with clusters("fresh") as one:
        yield one


@pytest.fixture(scope="session")
def cluster(machine: None) -> Iterator[Clusters]:
    """Four nodes of two ranks with links of 1 gbit, with Slurm where it is installed."""
    with clusters("four") as one:
        one.up("--nodes", "4", *([] if missing_tools(slurm=True) else ["--slurm"]))
        yield one


@contextmanager
def clusters(name: str) -> Iterator[Clusters]:
    """Give a cluster of a name that no other run of the tests has, and remove it at the end."""
    with tempfile.TemporaryDirectory(prefix="sparsecomm-cluster-") as folder:
        os.chmod(folder, 0o755)  # munge refuses a folder that not all can enter
        one = Clusters(f"{name}{os.getpid()}", Path(folder))
        try:
            yield one
        finally:
            down = one.call("down")
        assert down.rc == 0, down
        assert not one.namespaces()
        assert not one.folder.exists()


@pytest.fixture(params=["mpich", "openmpi"])
def env(request: pytest.FixtureRequest) -> str:
    """The environment of each MPI."""
    folder = BIN[request.param].parent
    if not (folder / "bin" / "mpiexec").exists():
        pytest.skip(f"no {request.param} here: {folder} has no mpiexec; `make test` installs it")
    return str(folder)
