"""Majority votes on signs over the ranks, one bit an entry."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sparsecomm.collectives.transport.base import Transport
from sparsecomm.collectives.two_rounds import TwoRounds


class SignAllreduce:
    """Returns for every entry the sign that most ranks give it, sending 1/32 of the bytes of a float32 ring.

    A rank votes +1 for an entry above zero and -1 for one below. For an entry that has no sign, because it is a zero
    of either sign or not a number, it votes as a coin falls; and where as many ranks vote for one sign as for the
    other, a coin of the rank that counts them decides. A fixed sign instead would push all such entries one way, call
    after call. Coins follow from the seed, the rank and the number of the call: a run that is repeated ends alike.

    Args:
        transport: over the ranks.
        size: entries of an array.
        seed: of the coins.

    Raises:
        PlanError: on every rank, when sizes or seeds differ.

    Source: the exchange is that of 1-bit Adam: packed bits to the owner of a chunk, its result to all (Tang et al.,
        2021); majority votes on signs: Bernstein et al., "signSGD", 2018.

    Note: Collective over comm.
    """

    def __init__(self, transport: Transport, size: int, *, seed: int = 0) -> None:
        self._size, self._num_ranks = size, transport.num_ranks
        self._rounds = TwoRounds(transport, (size + 7) // 8, np.uint8, entries=size, seed=seed)
        self._coins = np.random.Philox(np.random.SeedSequence([seed, transport.rank]))

    @property
    def bytes_sent(self) -> int:
        """Bytes that this rank has sent since this was made."""
        return self._rounds.bytes_sent

    def __call__(self, values: npt.NDArray[Any]) -> npt.NDArray[np.int8]:
        """Return +1 or -1 for every entry, (size,) int8.

        Args:
            values: (size,) real numbers.

        Note: Collective over comm.
        """
        signless = np.packbits(~((values > 0) | (values < 0)))
        self._rounds.given[...] = np.packbits(values > 0) | signless & self._thrown(signless.size)
        bits = np.unpackbits(self._rounds.run(self._majority), count=self._size)
        return bits.astype(np.int8) * 2 - 1

    def close(self) -> None:
        """Free what was made.

        Note: Collective over comm.
        """
        self._rounds.close()

    def _majority(self, packed: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        votes = np.zeros(packed.shape[1] * 8, dtype=np.int32)
        for row in packed:
            votes += np.unpackbits(row)
        ties = np.packbits(2 * votes == self._num_ranks)
        return np.packbits(2 * votes > self._num_ranks) | ties & self._thrown(ties.size)

    def _thrown(self, num_bytes: int) -> npt.NDArray[np.uint8]:
        return self._coins.random_raw(-(-num_bytes // 8)).view(np.uint8)[:num_bytes]
