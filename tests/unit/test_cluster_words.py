"""What a user asks of `sparsecomm cluster`, before any of it is made: needs neither root nor Linux namespaces."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsecomm.launch.cli import main
from sparsecomm.launch.cluster.names import Cluster, parse_bandwidth, parse_nodes, show_bandwidth
from sparsecomm.launch.cluster.tools import install_script

# In the place of apt-get: it leaves its words in a file.
APT = '#!/bin/sh\necho "$@" >> "$SEEN"\n'


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["--nodes", "0"], "0 nodes; give 1 to 200"),
        (["--nodes", "201"], "201 nodes; give 1 to 200"),
        (["--nodes", "2x"], "nodes '2x'"),
        (["--nodes", "2,0"], "a node of 0 ranks"),
        (["--nodes", "2,2", "--ranks-per-node", "2"], "drop --ranks-per-node"),
        (["--ranks-per-node", "257"], "a node of 257 ranks"),
        (["--bandwidth", "fast"], "bandwidth 'fast'; give 1mbit to 100gbit"),
        (["--bandwidth", "1kbit"], "bandwidth '1kbit'"),
        (["--name", "../x"], "cluster name '../x'"),
    ],
)
def test_what_is_wrong_is_refused(options: list[str], wanted: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cluster", "up", *options]) == 2
    assert wanted in capsys.readouterr().err


def test_run_without_a_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cluster", "run"]) == 2
    assert "give it after --" in capsys.readouterr().err


def test_nodes() -> None:
    assert parse_nodes("4", None) == (2, 2, 2, 2)
    assert parse_nodes("2", 3) == (3, 3)
    assert parse_nodes("3,3,1", None) == (3, 3, 1)


@given(st.integers(1, 999), st.sampled_from([10**6, 10**8]))
def test_bandwidth_is_read_back(number: int, unit: int) -> None:
    assert parse_bandwidth(show_bandwidth(number * unit)) == number * unit


def test_a_request_is_read_back_and_its_names_differ() -> None:
    cluster = Cluster("a", (3, 1, 2), 10**9, slurm=True)
    assert Cluster.from_dict(cluster.to_dict()) == cluster
    assert len({node.namespace for node in cluster.all_nodes} | {node.address for node in cluster.all_nodes}) == 8


@pytest.mark.parametrize("there", [True, False])
def test_packages_are_installed_where_programs_are_missing(there: bool, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    script = install_script()
    names = script.partition("for program in ")[2].partition(";")[0].split()
    assert {"ip", "tc", "munged", "slurmctld", "slurmd", "srun", "sbatch"} <= set(names)
    for name in [*names, "apt-get"] if there else ["apt-get"]:
        (tmp_path / name).write_text(APT)
        (tmp_path / name).chmod(0o755)
    # No folder of the system on the path, and no policy of the system written.
    script = script.replace("/usr/sbin/policy-rc.d", str(tmp_path / "policy")).replace("$PATH:/usr/sbin:/sbin", "$PATH")
    for name in ("rm", "chmod"):
        (tmp_path / name).symlink_to(f"/bin/{name}")
    environ = {**os.environ, "PATH": str(tmp_path), "SEEN": str(seen)}
    done = subprocess.run(["/bin/sh", "-c", script], env=environ, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "policy").exists()
    if there:
        assert not seen.exists()
    else:
        assert "not installed here: ip tc" in done.stdout
        update, install = seen.read_text().splitlines()
        assert update == "update"
        assert {"iproute2", "munge", "slurmctld", "slurmd", "slurm-client"} <= set(install.split())
