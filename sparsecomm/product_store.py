"""Product directories: a header, the layouts, and one shard per rank, so that a job reads only its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from sparsecomm.errors import InputError
from sparsecomm.layout import Layouts
from sparsecomm.pattern import Remote
from sparsecomm.plan import Messages, Plan, RankPlan, RankStage, Stage, fingerprint_of
from sparsecomm.product import Product, RankProduct
from sparsecomm.store import (
    HEADER,
    Header,
    load_indices,
    load_layouts,
    new_directory,
    rank_folder,
    read_header,
    save_arrays,
    save_layouts,
    write_header,
)
from sparsecomm.topology import Topology
from sparsecomm.traffic import PLANS, Traffic, from_table, to_table, traffic_of
from sparsecomm.typing import IntGlobal

REPORT: Final = "report.json"
KIND: Final = "sparsecomm.product"
VERSION: Final = 1
READS: Final = (1,)
_NEEDED: Final = {
    "strategy": str,
    "fingerprint": str,
    "hashes": list,
    "matrix": dict,
    "topology": dict,
    "num_ranks": int,
}
_SEND, _RECV = 0, 1
MAX_STAGES: Final = 1 << 16  # the file of messages may not name more


def save_product(
    path: Path,
    product: Product,
    remote: Remote,
    matrix: Header,
    partition: str = "given",
    report: Header | None = None,
) -> str:
    """Write a product and return its fingerprint.

    Args:
        path: the directory to make.
        product: what to write.
        remote: the remote nonzeros it was made for, which say where each rank's multipliers begin.
        matrix: `name`, `rows`, `cols`, `nnz` and `fingerprint` of the matrix it is for.
        partition: how the matrix was partitioned.
        report: what was counted and predicted, for `sparsecomm report`.

    Raises:
        InputError: `path` exists and is not a directory that this library wrote.
    """
    bounds = np.searchsorted(remote.nonzeros.rank, np.arange(product.num_ranks + 1))
    hashes = np.zeros(product.num_ranks, dtype=np.uint64)
    with new_directory(path, KIND) as folder:
        for p, shards in enumerate(zip(product.gather.shards(), product.scatter.shards(), strict=True)):
            mine = product.multiplier[bounds[p] : bounds[p + 1]]
            shard = RankProduct(product.strategy, *shards, mine, product.layouts, product.relays)
            hashes[p] = shard.hash()
            save_shard(rank_folder(folder, p), shard)
        save_layouts(folder, product.layouts)
        save_arrays(folder, "traffic", {"messages": to_table(traffic_of(product))})
        (folder / REPORT).write_text(json.dumps(report or {}))  # not in the header, which every rank reads
        header = {
            "strategy": product.strategy,
            "relays": product.relays,
            "fingerprint": fingerprint_of(hashes),
            "hashes": [f"{int(value):016x}" for value in hashes],
            "matrix": matrix,
            "topology": product.topology.to_dict(),
            "num_ranks": product.num_ranks,
            "partition": partition,
        }
        write_header(folder, KIND, VERSION, header)
    return fingerprint_of(hashes)


def load_product_header(path: Path, num_ranks: int | None = None) -> Header:
    """Read the header of a product directory and refuse one made for another number of ranks.

    Raises:
        InputError: with what the directory is for and what was expected.
    """
    header = read_header(path, KIND, READS, _NEEDED)
    if len(header["hashes"]) != header["num_ranks"]:
        raise InputError(f"{path} has {len(header['hashes'])} hashes for {header['num_ranks']} ranks; plan again")
    if num_ranks is not None and header["num_ranks"] != num_ranks:
        raise InputError(
            f"plan {path} is for {header['num_ranks']} ranks, but here are {num_ranks}; "
            f"use {header['num_ranks']} ranks or plan again with a topology of {num_ranks}"
        )
    return header


def check_matrix(path: Path, header: Header, name: str, fingerprint: str) -> None:
    """Refuse a product made for a matrix of another structure.

    Raises:
        InputError: with both matrices.
    """
    if header["matrix"]["fingerprint"] != fingerprint:
        raise InputError(
            f"plan {path} was made for matrix {header['matrix']['name']}, which has another structure than {name}; "
            f"plan {name} again"
        )


def check_topology(path: Path, header: Header, topology: Topology) -> None:
    """Refuse a product made for other groups of ranks; what their links cost may differ.

    Raises:
        InputError: with both topologies.
    """
    made_for = load_topology(path, header)
    if made_for.level_names != topology.level_names or not np.array_equal(made_for.groups, topology.groups):
        raise InputError(
            f"plan {path} was made for topology {made_for.name}, not {topology.name}; plan again for {topology.name}, "
            "or give no topology"
        )


def load_topology(path: Path, header: Header) -> Topology:
    """Return the topology a product was made for.

    Raises:
        InputError: the header does not describe one for its number of ranks.
    """
    try:
        topology = Topology.from_dict(header["topology"])
    except InputError as err:
        raise InputError(f"{path / HEADER}: {err}; plan again") from err
    if topology.num_ranks != header["num_ranks"]:
        raise InputError(
            f"{path / HEADER} is for {header['num_ranks']} ranks, but its topology has {topology.num_ranks}; plan again"
        )
    return topology


def load_rank_product(path: Path, header: Header, rank: int) -> RankProduct:
    """Read the shard of one rank, and only that.

    Raises:
        InputError: a file is missing or damaged.
    """
    layouts, folder = load_layouts(path, header), rank_folder(path, rank)
    try:
        shard = load_shard(folder, header, rank, layouts)
        intact = f"{shard.hash():016x}" == header["hashes"][rank]
    except InputError:
        raise
    except (ArithmeticError, LookupError, TypeError, ValueError) as err:
        raise InputError(f"{folder} does not hold a plan: {err}; plan again") from err
    if not intact:
        raise InputError(f"{folder} does not match the header of {path}; it is damaged, plan again")
    return shard


def load_report(path: Path) -> Header:
    """Return what was counted and predicted when a product was saved; nothing where nobody noted it.

    Raises:
        InputError: the file is damaged.
    """
    try:
        report = json.loads((path / REPORT).read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as err:
        raise InputError(f"{path / REPORT} cannot be read: {err}; plan again") from err
    return report if isinstance(report, dict) else {}


def load_traffic(path: Path, header: Header, row_bytes: int) -> Traffic:
    """Read the messages of all ranks, from one file.

    Raises:
        InputError: it is missing or damaged, or speaks of ranks that the header does not know.
    """
    table = load_indices(path, "traffic", "messages", ndim=2).astype(np.int64)
    topology = load_topology(path, header)
    most = np.array([len(PLANS), MAX_STAGES, topology.num_levels, topology.num_ranks, topology.num_ranks])
    if table.shape[1] != 8 or (table < 0).any() or (table[:, :5] >= most).any():
        raise InputError(f"{path}: its table of messages does not fit its topology; plan again")
    return from_table(table, row_bytes)


def load_product(path: Path) -> Product:
    """Read the whole product of all ranks.

    Raises:
        InputError: a file is missing or damaged.
    """
    header = load_product_header(path)
    topology = load_topology(path, header)
    shards = [load_rank_product(path, header, rank) for rank in range(header["num_ranks"])]
    gather = _join([shard.gather for shard in shards], topology)
    scatter = _join([shard.scatter for shard in shards], topology)
    for plan in (gather, scatter):
        _check_levels(path, plan)
    multiplier = np.concatenate([shard.multiplier for shard in shards])
    return Product(header["strategy"], gather, scatter, multiplier, shards[0].layouts, shards[0].relays)


def _check_levels(path: Path, plan: Plan) -> None:
    """Hold the topology of the header, which no hash covers, against the levels of the stages."""
    for stage in plan.stages:
        if (plan.topology.level_of(stage.src, stage.dst) != stage.level).any():
            raise InputError(f"plan {path} was made for other groups of ranks than its header says; plan again")


def save_shard(folder: Path, shard: RankProduct) -> None:
    """Write the part of one rank; layouts and hashes are the header's."""
    save_arrays(folder, "product", {"multiplier": shard.multiplier})
    for name, plan in (("gather", shard.gather), ("scatter", shard.scatter)):
        sides = [(number, side, stage) for number, stage in enumerate(plan.stages) for side in (_SEND, _RECV)]
        picked = [stage.send if side == _SEND else stage.recv for _, side, stage in sides]
        table = [_message_rows(n, stage.level, side, m) for (n, side, stage), m in zip(sides, picked, strict=True)]
        arrays = {
            "ghost_rows": plan.ghost_rows,
            "staging_rows": plan.staging_rows,
            "levels": np.array([stage.level for stage in plan.stages], dtype=np.int64),
            "messages": np.concatenate([np.empty((0, 4), np.int64), *table]),
            "slots": np.concatenate([np.empty(0, np.int32), *(messages.slots for messages in picked)]),
        }
        save_arrays(folder, name, arrays)


def load_shard(folder: Path, header: Header, rank: int, layouts: Layouts) -> RankProduct:
    """Map what `save_shard` wrote, given a header with `strategy` and, unless it is an old one, `relays`.

    Raises:
        InputError: a file is missing or damaged.
    """
    gather = _load_plan(folder, "gather", rank, layouts.cols.own_rows(rank))
    scatter = _load_plan(folder, "scatter", rank, layouts.rows.own_rows(rank))
    multiplier, relays = load_indices(folder, "product", "multiplier"), bool(header.get("relays", False))
    return RankProduct(header["strategy"], gather, scatter, multiplier, layouts, relays)


def _message_rows(number: int, level: int, side: int, messages: Messages) -> IntGlobal:
    """Return (num_messages, 4) int64: stage, side, peer, rows."""
    rows = np.empty((messages.num_messages, 4), dtype=np.int64)
    rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 3] = number, side, messages.peers, np.diff(messages.indptr)
    return rows


def _load_plan(folder: Path, name: str, rank: int, own: range) -> RankPlan:
    table = load_indices(folder, name, "messages", ndim=2)
    slots, levels, ghosts, staging = (
        load_indices(folder, name, part) for part in ("slots", "levels", "ghost_rows", "staging_rows")
    )
    if table.shape[1] != 4 or int(table[:, 3].sum()) != slots.size:
        raise InputError(f"{folder}: the messages and slots of {name} do not fit together; plan again")
    bounds = np.concatenate([[0], np.cumsum(table[:, 3])])
    stages = []
    for number, level in enumerate(levels):
        sides = [_load_messages(table, bounds, slots, number, side) for side in (_SEND, _RECV)]
        stages.append(RankStage(int(level), *sides))
    return RankPlan(rank, own.start, len(own), ghosts, staging, tuple(stages))


def _load_messages(
    table: IntGlobal, bounds: IntGlobal, slots: npt.NDArray[np.int32], number: int, side: int
) -> Messages:
    mine = np.flatnonzero((table[:, 0] == number) & (table[:, 1] == side))
    indptr = np.concatenate([[0], np.cumsum(table[mine, 3])]).astype(np.int64)
    part = slots[bounds[mine[0]] : bounds[mine[-1] + 1]] if mine.size else slots[:0]
    return Messages(table[mine, 2].astype(np.int32), indptr, part)


def _join(shards: list[RankPlan], topology: Topology) -> Plan:
    """Put the parts of all ranks together again."""
    stages = [_join_stage([shard.stages[n] for shard in shards]) for n in range(len(shards[0].stages))]
    return Plan(
        topology,
        _indptr([shard.num_own for shard in shards]),
        _indptr([shard.num_ghost for shard in shards]),
        np.concatenate([shard.ghost_rows for shard in shards]),
        _indptr([shard.staging_rows.size for shard in shards]),
        np.concatenate([shard.staging_rows for shard in shards]),
        tuple(stages),
    )


def _join_stage(parts: list[RankStage]) -> Stage:
    """Line up what all ranks send, by (dst, src), with what all ranks receive, which is in that order already."""
    sends, recvs = [_Ends.of([getattr(part, side) for part in parts]) for side in ("send", "recv")]
    order = np.argsort(sends.peer, kind="stable")
    return Stage(parts[0].level, recvs.peer, recvs.rank, sends.slots[order], recvs.slots)


class _Ends:
    """One side of the copies of a stage: the rank, its peer and its slot."""

    def __init__(self, rank: Any, peer: Any, slots: Any) -> None:
        self.rank, self.peer, self.slots = rank, peer, slots

    @staticmethod
    def of(messages: list[Messages]) -> _Ends:
        rank = np.repeat(np.arange(len(messages)), [part.num_rows for part in messages])
        peer = np.concatenate([np.repeat(part.peers, np.diff(part.indptr)) for part in messages])
        return _Ends(rank, peer, np.concatenate([part.slots for part in messages]))


def _indptr(counts: list[int]) -> IntGlobal:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
