"""A training run of which one rank is killed: `python -m tests.gnn_job DATASET CHECKPOINT RANK EPOCH` in an MPI job."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from sparsecomm.apps.gnn.job import GnnOptions, run_gnn
from sparsecomm.apps.gnn.settings import settings_of
from sparsecomm.collectives.transport.mpi import MpiTransport
from sparsecomm.topology import Topology

EPOCHS = 45


def _main(dataset: str, checkpoint: str, rank: str, last: str) -> None:
    options = GnnOptions(dataset, settings_of("gcn", epochs=EPOCHS), checkpoint=Path(checkpoint))
    with MpiTransport() as transport:

        def on_epoch(epoch: Any, num_bytes: Any) -> None:
            if (transport.rank, epoch.number) == (int(rank), int(last)):
                os.kill(os.getpid(), signal.SIGKILL)

        run_gnn(options, Topology.parse(f"nodes:{transport.num_ranks}"), transport, on_epoch=on_epoch)


if __name__ == "__main__":
    _main(*sys.argv[1:])
