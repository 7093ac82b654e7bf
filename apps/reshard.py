"""A partition directory cut anew, shard by shard: for matrices that do not fit the memory of one machine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from sparsecomm.apps.source import Say, quiet
from sparsecomm.apps.summary import Json, Loads, topology_json
from sparsecomm.layout import Layout, Layouts
from sparsecomm.matrix_store import (
    KIND,
    VERSION,
    load_partition_header,
    load_partition_layouts,
    load_shard,
    save_shard,
)
from sparsecomm.partition.request import Request
from sparsecomm.partition.streaming import partition_stream
from sparsecomm.store import load_array, new_directory, rank_folder, save_layouts, write_header
from sparsecomm.topology import Topology
from sparsecomm.typing import Bools, IntGlobal


def reshard(path: Path, topology: Topology, request: Request, output: Path | None, say: Say = quiet) -> Json:
    """Partition a directory by one pass over its shards, and write it anew; holds a shard or two at a time.

    Args:
        path: a partition directory, for any number of ranks.
        topology: the ranks to spread over.
        request: limits of the partition.
        output: the directory to make, if any.
        say: told of every step that begins.

    Returns:
        `matrix`, `topology`, `partition`, and the rows of X that enter ranks and nodes (`gather_rows`).

    Raises:
        InputError: `path` is damaged, or `output` is something else.
    """
    header = load_partition_header(path)
    before = load_partition_layouts(path, header)
    say("one pass over the shards")
    begin = time.perf_counter()
    after = partition_stream(_shards(path, before), *_size(header), topology, request)
    seconds = time.perf_counter() - begin
    nnz, users = np.zeros(topology.num_ranks, dtype=np.int64), _Users(after, topology)
    report = {"matrix": header["matrix"], "topology": topology_json(topology)}
    if output is None:
        say("counting rows")
        for rank, shard in enumerate(_moved(path, before, after)):
            nnz[rank] = shard.nnz
            users.add(rank, shard)
    else:
        say(f"writing {output}")
        with new_directory(output, KIND) as folder:
            for rank, shard in enumerate(_moved(path, before, after)):
                nnz[rank] = shard.nnz
                users.add(rank, shard)
                save_shard(folder, rank, shard, 0, shard.shape[0])
            whole = Layouts(*(_after(*pair) for pair in zip(before, after, strict=True)))
            save_layouts(folder, Layouts(whole.rows, whole.rows) if after.rows is after.cols else whole)
            loads = _partition_json(after, nnz, topology, seconds)
            described = {"matrix": header["matrix"], "topology": topology.to_dict(), "num_ranks": topology.num_ranks}
            write_header(folder, KIND, VERSION, described | loads)
    partition = _partition_json(after, nnz, topology, seconds)
    return {
        "schema": "sparsecomm.partition/1", **report, "partition": partition, "gather_rows": users.to_json(),
    }  # fmt: skip


def _size(header: Json) -> tuple[tuple[int, int], int]:
    matrix = header["matrix"]
    return (matrix["rows"], matrix["cols"]), matrix["nnz"]


def _partition_json(layouts: Layouts, nnz: IntGlobal, topology: Topology, seconds: float) -> Json:
    imbalance = Loads(layouts.rows.counts, nnz).imbalance(topology)
    return {"method": "streaming", "seconds": seconds, "imbalance": imbalance}


def _shards(path: Path, layouts: Layouts) -> Iterator[csr_array[Any]]:
    return (load_shard(path, layouts, rank) for rank in range(layouts.rows.num_ranks))


def _moved(path: Path, before: Layouts, after: Layouts) -> Iterator[csr_array[Any]]:
    """Give the rows of every new rank, renumbered."""
    rows, offsets = after.rows.new_to_old(), before.rows.offsets
    new_col = after.cols.to_all()
    for rank in range(after.rows.num_ranks):
        own = rows[after.rows.offsets[rank] : after.rows.offsets[rank + 1]]
        bounds = np.searchsorted(own, offsets)
        pieces = [
            _take(rank_folder(path, old), own[first:last] - offsets[old])
            for old, (first, last) in enumerate(pairwise(bounds))
        ]
        counts, cols, data = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
        indptr = np.concatenate([[0], np.cumsum(counts)])
        shard = csr_array((data, new_col[cols], indptr), shape=(own.size, after.cols.num_rows))
        shard.sort_indices()
        yield shard


def _take(folder: Path, rows: IntGlobal) -> tuple[IntGlobal, IntGlobal, Any]:
    """Return the counts, columns and values of some rows of a shard, which the first pass has checked."""
    indptr, indices, data = (load_array(folder, "matrix", name) for name in ("indptr", "indices", "data"))
    starts, counts = indptr[rows], indptr[rows + 1] - indptr[rows]
    places = np.arange(int(counts.sum())) + np.repeat(starts - (np.cumsum(counts) - counts), counts)
    return counts, indices[places], data[places]


def _after(first: Layout, then: Layout) -> Layout:
    """Return the layout that numbers rows by `first` and these numbers by `then`."""
    return Layout(then.offsets, then.to_new(first.to_all()))


class _Users:
    """Counts the distinct rows of X that each rank and each node needs of others."""

    def __init__(self, layouts: Layouts, topology: Topology) -> None:
        self._offsets, self._node = layouts.cols.offsets, topology.rank_to_node
        self._ranks = 0
        self._needed: dict[int, Bools] = {}
        self._owner_node = self._node[layouts.cols.owners()]

    def add(self, rank: int, shard: csr_array[Any]) -> None:
        own = (shard.indices >= self._offsets[rank]) & (shard.indices < self._offsets[rank + 1])
        ghosts = np.unique(shard.indices[~own])
        self._ranks += ghosts.size
        node = int(self._node[rank])
        flags = self._needed.setdefault(node, np.zeros(self._owner_node.size, dtype=np.bool_))
        flags[ghosts] = True

    def to_json(self) -> Json:
        nodes = (np.count_nonzero(flags & (self._owner_node != node)) for node, flags in self._needed.items())
        return {"rank": self._ranks, "network": int(sum(nodes))}
