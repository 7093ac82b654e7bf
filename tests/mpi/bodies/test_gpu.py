"""Messages in memory of a GPU with one process per rank; the memory is the host's, and shown as a GPU's is."""

from __future__ import annotations

from mpi4py import MPI

import numpy as np
import pytest

from sparsecomm.collectives.transport.base import MessageBuffer
from sparsecomm.collectives.transport.mpi import MpiTransport
from sparsecomm.collectives.transport.mpi_gpu import AWARE, gpu_refusal
from sparsecomm.collectives.transport.waits import Wait, Waiting
from sparsecomm.errors import InputError
from tests.cpu_cupy import ndarray


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("max_bytes", [1 << 20, 40])
def test_messages_may_lie_on_a_gpu(comm: MPI.Intracomm, max_bytes: int) -> None:
    with MpiTransport(comm, max_bytes=max_bytes) as transport:
        after, before = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
        out, into = ndarray(np.zeros((7, 3), np.float32)), ndarray(np.zeros((7, 3), np.float32))
        with pytest.raises(TypeError, match="Implicit conversion"):
            np.asarray(out)
        channel = transport.open([MessageBuffer(after, 3, out[2:])], [MessageBuffer(before, 3, into[2:])])
        for lap in range(3):
            out._memory[:] = 10 * comm.rank + lap
            channel.start((0,))
            wait = Wait(transport.watch, lambda: Waiting("a test"))
            assert sum(arrival.num_bytes for arrival in channel.wait(wait)) == 60
            channel.finish(wait)
            assert (into._memory[2:] == 10 * before + lap).all()
            assert not into._memory[:2].any()
        channel.close()


@pytest.mark.mpi
def test_an_mpi_is_given_no_memory_of_gpus_that_it_does_not_ask_for(comm: MPI.Intracomm) -> None:
    assert f"({AWARE}=1 if it can)" in gpu_refusal({})
    assert gpu_refusal({AWARE: "1"}) == ""
    assert gpu_refusal({AWARE: "0"}) == f"{AWARE} is 0"
    with pytest.raises(InputError, match="give 1 if MPI reads"):
        gpu_refusal({AWARE: "yes"})
