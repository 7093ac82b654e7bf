"""Some columns of a product on their way, from the rows that are asked for to the sums that are added."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sparsecomm.apps.exchanges import Exchanges
from sparsecomm.collectives.exchange import Exchange
from sparsecomm.collectives.pending import Pending
from sparsecomm.kernels import Block
from sparsecomm.profile import clock, products

Dense = npt.NDArray[Any]

_GHOSTS, _SUMS = "ghosts", "sums"


@dataclass(frozen=True, slots=True, eq=False)
class Way:
    """A product one way round: `Y = own X + in G(X) + S(out X + via G(X))`.

    Args:
        gather, scatter: names of the plans of G and S.
        own, in_, out, via: this rank's blocks.
        any_via: whether some rank's via block has nonzeros, so that partial rows wait for ghosts on all ranks.
    """

    gather: str
    scatter: str
    own: Block
    in_: Block
    out: Block
    via: Block
    any_via: bool


class Waited:
    """Adds up the time in which a rank does nothing but communicate, in `with`."""

    def __init__(self) -> None:
        self.ns = 0

    def __enter__(self) -> None:
        self._began = clock()

    def __exit__(self, *error: object) -> None:
        self.ns += clock() - self._began


class Part:
    """Some columns of a product. What it does comes in this order: `ask`, `prepare`, `take_ghosts`, `add_sums`.

    The own block is multiplied by whoever made the part, before `take_ghosts`.

    Args:
        way: of the product.
        x: (num_own, width) rows of X, perhaps some columns of them; not modified.
        y: (num_own, width) rows of Y, likewise.
        exchanges: of the product.
        depths: buffer sets of the exchanges of ghosts and of sums.
        waited: told how long it waits.

    Attributes:
        runs: what has begun and has not been waited for.
    """

    def __init__(
        self, way: Way, x: Dense, y: Dense, exchanges: Exchanges, depths: tuple[int, int], waited: Waited
    ) -> None:
        self._way, self._exchanges, self._depths, self._waited = way, exchanges, depths, waited
        self.x, self.y = x, y
        self._gather = self._exchange(way.gather, x.dtype, depths[0])
        self._scatter: Exchange | None = None
        self.runs: dict[str, Pending] = {}
        self._fetch: Pending | None = None
        self._partials: Dense | None = None
        self._sent = False

    def ask(self, *, in_place: bool) -> None:
        """Ask for the ghosts.

        Args:
            in_place: hand X over as it is: it must not change before `settle`.
        """
        if self._gather is None:
            return
        x = self.x
        if not in_place:
            x = self._gather.own_buffer()
            self._exchanges.copy_sent(self._way.gather, self.x, x)
        self._fetch = self.runs[_GHOSTS] = self._gather.start(x, in_place=True)

    def prepare(self) -> None:
        """Multiply what needs no ghosts of the partial rows, and send these if ghosts add nothing to them.

        Otherwise the part before must have sent its own: both are made in the same memory.
        """
        if self._partials is not None:
            return
        scatter = self._scatter = self._exchange(self._way.scatter, self.y.dtype, self._depths[1])
        shape = (self._exchanges.plan(self._way.scatter).num_ghost, self.x.shape[1])
        self._partials = scatter.partials_buffer() if scatter else np.empty(shape, dtype=self.y.dtype)
        with products().product("out"):
            self._way.out.multiply(self.x, self._partials)
        if not self._way.any_via:
            self._send()

    def take_ghosts(self, parts: Sequence[Part]) -> None:
        """Wait for the ghosts and multiply them; send the partial rows if that has not been done.

        Args:
            parts: that must go on meanwhile.
        """
        self.prepare()
        if self._gather is not None and self._fetch is not None:
            with self._waited:
                ghosts = self._fetch.wait(meanwhile=self._others(_GHOSTS, parts))
            self._multiply_ghosts(ghosts, self._gather.ghost_places())
            self._fetch.release()
        if not self._sent:
            self._send()

    def add_sums(self, parts: Sequence[Part]) -> None:
        """Wait for the sums of partial rows and add them to Y.

        Args:
            parts: that must go on meanwhile.
        """
        back = self.runs.get(_SUMS)
        if back is None:
            return
        with self._waited:
            others = self._others(_SUMS, parts)
            if self.y.flags.c_contiguous:
                back.wait(self.y, meanwhile=others)
            else:  # some columns only, and what adds whole rows would copy all of Y
                sums = back.wait_sums(meanwhile=others)
                self.y[sums.own] += sums.rows

    def settle(self) -> None:
        """Block until X, handed over as it is, may change."""
        if self._fetch is not None:
            with self._waited:
                self._fetch.settle()

    def drop(self, parts: Sequence[Part]) -> None:
        """Let what has begun come to its end; Y is of no use."""
        for side, run in list(self.runs.items()):
            run.wait(meanwhile=self._others(side, parts))
            run.release()

    def _exchange(self, plan: str, dtype: np.dtype[Any], depth: int) -> Exchange | None:
        return self._exchanges.get(plan, self.x.shape[1], dtype, depth) if self._exchanges.plan(plan).stages else None

    def _send(self) -> None:
        self._sent = True
        if self._scatter is not None and self._partials is not None:
            self.runs[_SUMS] = self._scatter.start_reverse(self._partials)

    def _multiply_ghosts(self, ghosts: Dense, places: npt.NDArray[np.int64] | None) -> None:
        assert self._partials is not None  # prepared before
        in_, via = self._way.in_, self._way.via
        if places is not None:
            in_, via = (block.placed(places, len(ghosts)) for block in (in_, via))
        with products().product("in"):
            in_.multiply(ghosts, self.y, accumulate=True)
        with products().product("via"):
            via.multiply(ghosts, self._partials, accumulate=True)

    def _others(self, side: str, parts: Sequence[Part]) -> list[Pending]:
        """Note that a run is waited for from now on, and return those that must go on meanwhile."""
        del self.runs[side]
        return [run for part in parts for run in part.runs.values()]


class Queues:
    """The runs of parts, the oldest first: whoever multiplies lets them go on now and then."""

    def __init__(self, parts: Sequence[Part]) -> None:
        sides = (_GHOSTS, _SUMS)
        self._queues = [deque(part.runs[side] for part in parts if side in part.runs) for side in sides]

    def progress(self) -> None:
        """Advance the oldest run of each side: looking after all of them would cost more than it brings."""
        for queue in self._queues:
            while queue and queue[0].progress():
                queue.popleft()
