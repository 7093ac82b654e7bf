"""Parts of a product on a GPU that come again with the same memory, launched as CUDA graphs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from typing import Any, Final

from sparsecomm.arrays import current_stream, new_stream

_LOG: Final = logging.getLogger("sparsecomm")
_MOST: Final = 64


class Graphs:
    """Enqueues parts of products, each as one graph from the third time on, if asked to.

    The first time compiles and loads kernels, which a graph must not do; the second is captured. It is captured on a
    stream of its own and launched on the caller's, which may be one that cannot be captured. A graph holds addresses
    and no memory: it is launched for the very addresses that it was captured with, and forgotten with what it reads.
    Where addresses never come again nothing is captured, and beyond 64 graphs nothing more.

    Args:
        on: False enqueues kernel by kernel.
    """

    def __init__(self, on: bool = False) -> None:
        self._on = on
        self._seen: dict[Hashable, None] = {}
        self._graphs: dict[Hashable, Any] = {}

    @property
    def number(self) -> int:
        """How many have been captured."""
        return len(self._graphs)

    def run(self, part: Hashable, memory: tuple[int, ...], enqueue: Callable[[], None]) -> None:
        """Enqueue a part on the current stream.

        Args:
            part: names it, and with it all memory that stays as it is until `forget`.
            memory: addresses of what else it reads and writes.
            enqueue: launches kernels only: it allocates nothing, and neither records nor waits for an event.
        """
        key = (part, memory)
        if key in self._graphs:
            self._graphs[key].launch(current_stream())
        elif not (self._on and self._again(key) and self._launched(key, enqueue)):
            enqueue()

    def forget(self) -> None:
        """Drop all graphs, none of which runs any more: memory that they use goes away."""
        self._seen.clear()
        self._graphs.clear()

    def _again(self, key: Hashable) -> bool:
        if key in self._seen:
            return len(self._graphs) < _MOST
        self._seen[key] = None
        if len(self._seen) > 2 * _MOST:
            del self._seen[next(iter(self._seen))]
        return False

    def _launched(self, key: Hashable, enqueue: Callable[[], None]) -> bool:
        """Return whether a part could be captured, and is enqueued now."""
        try:
            graph = _captured(enqueue)
            graph.launch(current_stream())
        except RuntimeError as err:
            self._on = False
            _LOG.warning("CUDA graphs cannot be had here, kernels are launched one by one: %s", err)
            return False
        self._graphs[key] = graph
        return True


def _captured(enqueue: Callable[[], None]) -> Any:
    with new_stream() as stream:
        stream.begin_capture()
        try:
            enqueue()
        finally:
            graph = stream.end_capture()
    return graph
