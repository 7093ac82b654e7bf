"""`sparsecomm cluster up` and `down`: all or nothing, again and again, and never what someone else made."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from sparsecomm.errors import LaunchError
from sparsecomm.launch.cluster import lifecycle, network, tools
from sparsecomm.launch.cluster.names import Cluster
from tests.cluster.conftest import Clusters, system_env
from tests.jobs import run


def test_up_and_down_can_be_repeated(fresh: Clusters) -> None:
    fresh.up("--nodes", "2,1", "--bandwidth", "250mbit")
    assert fresh.namespaces() == {"head", "node0", "node1"}
    assert "is up already" in fresh.up("--nodes", "2,1", "--bandwidth", "250mbit").stdout
    facts = json.loads(fresh.call("status", "--json").stdout)
    assert (facts["state"], facts["problems"], facts["ranks"]) == ("up", [], 3)
    assert [node["bandwidth_bps"] for node in facts["nodes"]] == [None, 250_000_000, 250_000_000]

    other = fresh.call("up", "--nodes", "3")
    assert other.rc == 2, other
    assert "nodes of 2,1 ranks, links of 250mbit is up" in other.stderr

    assert "removed" in fresh.call("down").stdout
    assert "there is none" in fresh.call("down").stdout
    assert json.loads(fresh.call("status", "--json").stdout)["state"] == "absent"
    gone = fresh.run(["true"])
    assert gone.rc == 1, gone
    assert "make it with `sparsecomm cluster up`" in gone.stderr


@pytest.mark.parametrize("call", [1, 3, 8, 14, 21])
def test_a_signal_during_up_leaves_nothing(call: int, fresh: Clusters, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSECOMM_CLUSTER_STATE", str(fresh.folder.parent))
    monkeypatch.setattr(network, "run_tool", _signal_before(call, signal.SIGINT))
    with pytest.raises(LaunchError, match="interrupted by SIGINT"):
        lifecycle.up(Cluster(fresh.name, (1, 1), 10**9, slurm=False))
    assert not fresh.namespaces()
    assert not fresh.folder.exists()


def _signal_before(call: int, number: signal.Signals) -> Callable[..., str]:
    """Return a `run_tool` that signals this process before its `call`-th call."""
    calls = itertools.count(1)

    def run_tool(*argv: str) -> str:
        if next(calls) == call:
            os.kill(os.getpid(), number)
        return tools.run_tool(*argv)

    return run_tool


def test_a_step_that_fails_leaves_nothing(fresh: Clusters, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise LaunchError("no link today")

    monkeypatch.setenv("SPARSECOMM_CLUSTER_STATE", str(fresh.folder.parent))
    monkeypatch.setattr(network, "make_link", fail)
    with pytest.raises(LaunchError, match="no link today"):
        lifecycle.up(Cluster(fresh.name, (1, 1), 10**9, slurm=False))
    assert not fresh.namespaces()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_up_goes_on_after_one_that_was_ended(number: signal.Signals, fresh: Clusters) -> None:
    process = subprocess.Popen(fresh.command("up"), env={**os.environ, **fresh.env}, stderr=subprocess.PIPE, text=True)
    while len(fresh.namespaces()) < 2 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(number)
    said = process.communicate(timeout=200)[1]
    if process.returncode == 1:
        assert "interrupted by SIGTERM" in said
        assert not fresh.namespaces()
    fresh.call("down")
    fresh.up("--nodes", "1")


@pytest.fixture
def foreign(fresh: Clusters) -> Iterator[str]:
    """The namespace of a node, made by someone else."""
    name = f"sparsecomm-{fresh.name}-node1"
    ip("netns", "add", name)
    yield name
    assert "node1" in fresh.namespaces()
    ip("netns", "delete", name)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, timeout=200, env=system_env())


def test_up_leaves_a_foreign_namespace_alone(fresh: Clusters, foreign: str) -> None:
    job = fresh.call("up")
    assert job.rc == 2, job
    assert f"{foreign} exists and was not made by this cluster" in job.stderr
    assert fresh.namespaces() == {"node1"}
    assert "there is none" in fresh.call("down").stdout


def test_a_namespace_in_the_place_of_ours_is_left_alone(fresh: Clusters) -> None:
    fresh.up("--nodes", "2")
    name = f"sparsecomm-{fresh.name}-node1"
    ip("netns", "delete", name)
    ip("netns", "add", name)
    try:
        for job in (fresh.run(["true"]), fresh.call("up", "--nodes", "2")):
            assert job.rc == 1, job
            assert f"namespace {name} was made by someone else" in job.stderr
        down = fresh.call("down")
        assert down.rc == 1, down
        assert f"{name} was not made by this cluster and is left alone; the rest is gone" in down.stderr
        assert fresh.namespaces() == {"node1"}
    finally:
        ip("netns", "delete", name)


def test_without_root_it_tells_what_it_needs(fresh: Clusters) -> None:
    drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    job = run([*drop, *fresh.command("up")], timeout=200, env=fresh.env)
    assert job.rc == 1, job
    assert "needs root" in job.stderr
    assert "CAP_NET_ADMIN and CAP_SYS_ADMIN" in job.stderr
    assert "unshare --map-root-user" in job.stderr


def test_missing_programs_are_named_with_the_script(fresh: Clusters) -> None:
    empty = fresh.folder.parent / "bin"
    empty.mkdir()
    job = run(fresh.command("up", "--slurm"), timeout=200, env={**fresh.env, "PATH": str(empty)})
    assert job.rc == 1, job
    assert "not installed here: " in job.stderr
    assert "sparsecomm cluster packages | sudo sh" in job.stderr
