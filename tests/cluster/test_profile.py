"""What a profile says went over the network is what the kernel counted on the links of the nodes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.cluster.conftest import Clusters
from tests.jobs import ROOT

EGO_TWITTER = ROOT.parent / "shared" / "data" / "matrices" / "ego-twitter.npz"
OVERHEAD = 1.3  # headers of Ethernet, IP and TCP, acknowledgements, and what a busy machine sends again

# One product after the other between two looks at the counters of every node's link.
BODY = """
import json, subprocess, sys
import numpy as np
from sparsecomm import DistMatrix, Profile
from sparsecomm.apps.job import bring
from sparsecomm.collectives.transport.mpi import MpiTransport
from sparsecomm.collectives.transport.open import detect_topology

def counters():
    link = json.loads(subprocess.run(["ip", "-j", "-s", "link", "show", "dev", "eth0"], capture_output=True).stdout)[0]
    return np.array([link["stats64"][side]["bytes"] for side in ("tx", "rx")])

with MpiTransport() as transport:
    topology = detect_topology(transport)
    share = bring(sys.argv[1], topology, transport)
    with DistMatrix.from_rows(share.rows, share.layouts, topology, transport, strategy=sys.argv[2]) as matrix:
        x = matrix.empty(64)
        x[...] = transport.rank
        matrix @ x
        with Profile.record(sys.argv[3], transport, topology=topology) as profile:
            transport.barrier()
            before = counters()
            transport.barrier()
            for _ in range(3):
                matrix @ x
            transport.barrier()
            after = counters()
        table = np.concatenate([track.table() for track in profile.recorder.tracks])
        network = table[table[:, 3] == 1]
        mine = [network[network[:, 1] == side, 8].sum() for side in (0, 1)]
        node = topology.rank_to_node
        moved = np.zeros((topology.num_nodes, 2), dtype=np.int64)
        moved[node[transport.rank]] = mine
        seen = np.zeros_like(moved)
        if topology.lane_of(0)[transport.rank] == 0:
            seen[node[transport.rank]] = after - before
        moved, seen = transport.reduce(moved, "sum"), transport.reduce(seen, "sum")
        if transport.rank == 0:
            print(json.dumps({"moved": moved.tolist(), "seen": seen.tolist()}))
"""


@pytest.mark.parametrize("strategy", ["hierarchical"])
def test_the_links_counted_what_the_profile_says(
    cluster: Clusters, tmp_path: Path, strategy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    matrix = EGO_TWITTER if EGO_TWITTER.exists() else "rmat:15"
    job = cluster.run(["python", "-c", BODY, str(matrix), strategy, str(tmp_path / "run")])
    assert job.rc == 0, job
    found = json.loads(job.stdout.splitlines()[-1])
    ratios = (np.array(found["seen"]) / np.array(found["moved"])).ravel().tolist()
    with capsys.disabled():
        print(f"\nbytes on the links / bytes in the profile, nodes out and in: {[f'{one:.3f}' for one in ratios]}")
    assert len(ratios) == 8
    assert min(ratios) >= 1.0, found
    assert max(ratios) <= OVERHEAD, found
