"""Products of host memory: whole, cut into chunks of columns, or one after the other with two under way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from itertools import chain, pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from sparsecomm.apps.chunks import Chunks
from sparsecomm.apps.exchanges import Exchanges
from sparsecomm.apps.part import Part, Queues, Waited, Way
from sparsecomm.profile import clock, products

Dense = npt.NDArray[Any]

# Sums of one product come back while the next is multiplied and the one after that asks for its ghosts.
_DEPTHS: Final = (2, 3)


class HostProduct:
    """Makes products of one matrix.

    Args:
        exchanges: of the matrix.
        dtype: of its values.
        chunks: how many chunks of columns products are cut into.

    Attributes:
        waited: how long this rank has done nothing but communicate.
    """

    def __init__(self, exchanges: Exchanges, dtype: np.dtype[Any], chunks: Chunks) -> None:
        self._exchanges, self._dtype, self._chunks = exchanges, dtype, chunks
        self.waited = Waited()

    def multiply(self, x: Dense, way: Way) -> Dense:
        """Return this rank's rows of a product.

        Note: Collective over comm.
        """
        tuning = self._chunks.tuning(way.gather, x.shape[1], x.dtype)
        if tuning.kept is not None:
            return self._multiply(x, way, tuning.kept)
        number, began = tuning.begin(), clock()
        y = self._multiply(x, way, number)
        tuning.took((clock() - began) / 1e9)
        return y

    def _multiply(self, x: Dense, way: Way, num_chunks: int) -> Dense:
        """Return the product, made in chunks.

        What others wait for comes first: ghosts are asked for, partial rows made and sent, and the own block, the
        largest, is multiplied while both are on their way. In chunks, ghosts of some columns are multiplied while
        those of later ones are still coming and sums of earlier ones go back. No bit of Y depends on the chunks: every
        column is summed in the same order.
        """
        x = np.ascontiguousarray(x)
        y = self._result(x, way)
        parts = self._cut(x, y, way, num_chunks) if num_chunks > 1 else [self._part(way, x, y, (1, 1))]
        for part in parts:
            part.ask(in_place=len(parts) == 1)
        for part in parts[:1] if way.any_via else parts:
            part.prepare()
        self._multiply_own(x, y, way, parts)
        for part in parts:
            part.take_ghosts(parts)
        for part in parts:
            part.add_sums(parts)
        if len(parts) == 1:
            parts[0].settle()
        return y

    def products(self, xs: Iterable[Dense], way: Way) -> Generator[Dense, None, None]:
        """Yield the products of several X, in their order; see `DistMatrix.products`."""
        parts: list[Part] = []  # that have begun and have not been yielded, the oldest first
        begun = (self._begun(x, way, parts) for x in xs)
        try:
            for part, _ in pairwise(chain(begun, [None])):  # so that the next one has begun before this one goes on
                assert part is not None  # only the last of all is
                part.prepare()
                self._multiply_own(part.x, part.y, way, parts)
                part.take_ghosts(parts)
                if parts[0] is not part:
                    yield _ended(parts)
            if parts:
                yield _ended(parts)
        except GeneratorExit:  # nobody wants the others, but what has begun must end
            for part in parts:
                part.drop(parts)
            raise

    def _begun(self, x: Dense, way: Way, parts: list[Part]) -> Part:
        x = np.ascontiguousarray(x)
        part = self._part(way, x, self._result(x, way), _DEPTHS)
        part.ask(in_place=False)
        if not way.any_via:
            part.prepare()
        parts.append(part)
        return part

    def _cut(self, x: Dense, y: Dense, way: Way, num_chunks: int) -> list[Part]:
        cuts = cut_width(x.shape[1], num_chunks)
        widths = Counter(b - a for a, b in cuts)
        return [self._part(way, x[:, a:b], y[:, a:b], (widths[b - a],) * 2) for a, b in cuts]

    def _result(self, x: Dense, way: Way) -> Dense:
        rows = self._exchanges.plan(way.scatter).num_own
        return np.empty((rows, x.shape[1]), dtype=np.result_type(self._dtype, x.dtype))

    def _part(self, way: Way, x: Dense, y: Dense, depths: tuple[int, int]) -> Part:
        return Part(way, x, y, self._exchanges, depths, self.waited)

    def _multiply_own(self, x: Dense, y: Dense, way: Way, parts: Sequence[Part]) -> None:
        under_way = Queues(parts)
        for _ in products().chunks("own", way.own.multiply_in_chunks(x, y)):
            under_way.progress()


def _ended(parts: list[Part]) -> Dense:
    """Return the product of the oldest part, which leaves the list."""
    part = parts.pop(0)
    part.add_sums(parts)
    return part.y


def cut_width(width: int, num_chunks: int) -> list[tuple[int, int]]:
    """Return begin and end of chunks of columns; their widths differ by one at most."""
    count = max(1, min(width, num_chunks))
    return list(pairwise(width * number // count for number in range(count + 1)))
