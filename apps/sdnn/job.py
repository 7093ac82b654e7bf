"""`sparsecomm sdnn`: a network brought into a job, run, timed, counted and checked."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from sparsecomm.apps.job import on_all, on_root
from sparsecomm.apps.sdnn.check import plain_categories
from sparsecomm.apps.sdnn.exchanges import DEPTH, Exchanges
from sparsecomm.apps.sdnn.groups import Groups
from sparsecomm.apps.sdnn.inference import Inference
from sparsecomm.apps.sdnn.memory import Budget
from sparsecomm.apps.sdnn.prepared import Prepared, prepare
from sparsecomm.apps.sdnn.problem import Problem, SdnnOptions, open_problem
from sparsecomm.apps.sdnn.report import executed_json, memory_json, report_json
from sparsecomm.apps.source import Say, quiet
from sparsecomm.apps.summary import Json
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.errors import InputError
from sparsecomm.table import Table
from sparsecomm.topology import Topology
from sparsecomm.typing import IntGlobal

_MOST_EXCHANGES: Final = 64


def run_sdnn(options: SdnnOptions, topology: Topology, transport: Transport, say: Say = quiet) -> Json:
    """Run a network over its inputs and return the report on every rank.

    Raises:
        InputError: on every rank, for bad input, or where the memory allowed does not suffice.

    Note: Collective over comm.
    """
    begin = time.perf_counter()
    say("reading the inputs")
    problem = on_all(transport, lambda: open_problem(options))
    sharers = 1 if hasattr(transport, "comm") else transport.num_ranks  # threads share the memory of one process
    budget = Budget(options.memory, sharers)
    ready = prepare(problem, options, topology, transport, budget, say)
    room = _room(problem, ready, options.width, budget, transport)
    prepare_s = time.perf_counter() - begin
    exchanges = Exchanges(transport, topology.num_levels, room.exchanges)
    sequence = [layer % problem.network.num_distinct for layer in range(problem.network.num_layers)]
    inference = Inference(
        sequence,
        problem.network.bias,
        ready.weights,
        ready.plans,
        ready.groups,
        exchanges,
        transport,
        width=options.width,
        rebalance_after=options.rebalance,
        say=say,
    )
    runs = [inference.run(problem.inputs, room.images) for _ in range(options.repeat)]
    executed = executed_json(exchanges, options.repeat, topology, transport)
    exchanges.close()
    memory = memory_json(options.memory, room.images, problem.inputs.count, ready.weights, transport)
    ready.weights.close()
    alive = _collect(runs[-1].alive, ready.groups, transport)
    report = report_json(problem, options, topology, ready, runs, transport)
    return report | executed | {"memory": memory, "prepare_s": prepare_s} | _verdict(problem, options, alive, transport)


@dataclass(frozen=True, slots=True)
class Room:
    """What fits the memory of every rank: images of a group at once, and exchanges that are kept."""

    images: int
    exchanges: int


def _room(problem: Problem, ready: Prepared, width: int, budget: Budget, transport: Transport) -> Room:
    """Share out the memory that is left between exchanges and images.

    Raises:
        InputError: on every rank, when not even one batch fits on some rank.

    Note: Collective over comm.
    """
    left = budget.left()
    if left is None:
        return Room(problem.inputs.count, _MOST_EXCHANGES)
    one = DEPTH * max((plan.memory(width, np.float32) for _, plan in ready.plans), default=0)
    kept = min(_MOST_EXCHANGES, max(1, left // 4 // one)) if one else 1
    image = 4 * max(1, ready.groups.own_neurons(transport.rank).size)
    # Reading ahead has two buffers; three blocks are in hands while batches are packed; drawing a batch takes lists.
    fixed = 2 * ready.weights.largest * ready.weights.in_file + kept * one
    fixed += 3 * width * image + 16 * width * problem.network.neurons
    images = (left - fixed) // image // width * width
    short = fixed + width * image - left
    error = InputError(
        f"rank {transport.rank} needs {short / 2**20:.0f} MiB more than the {(budget.limit or 0) / 2**20:.0f} MiB"
        " allowed to hold one batch; raise --memory, lower -k, or run on more ranks with --mode model"
    )
    transport.agree(error if images < width else None)
    found = -transport.reduce(np.array([-images, -kept], dtype=np.int64), "max")
    return Room(int(found[0]), int(found[1]))


def _collect(alive: IntGlobal, groups: Groups, transport: Transport) -> IntGlobal:
    """Return the living images of all groups, ascending, on rank 0; nothing elsewhere.

    Note: Collective over comm.
    """
    rank = transport.rank
    mine = alive if rank == groups.first_ranks[groups.rank_to_group[rank]] else alive[:0]
    table = Table(np.full(mine.size, rank, dtype=np.int32), {"image": mine})
    return np.sort(transport.route(table, np.zeros(mine.size, dtype=np.int32))["image"])


def _verdict(problem: Problem, options: SdnnOptions, alive: IntGlobal, transport: Transport) -> Json:
    """Compare the categories on rank 0 with the truth and, if asked, with a plain loop; write them if asked.

    Note: Collective over comm.
    """

    def compare() -> Json:
        against = {} if problem.truth is None else {"truth": problem.truth}
        if options.check:
            against["scipy"] = plain_categories(problem.network, problem.inputs)
        verdicts = {name: np.array_equal(alive, wanted) for name, wanted in against.items()}
        if options.categories is not None:
            write_categories(options.categories, alive)
        verified = all(verdicts.values()) if verdicts else None
        return {"categories": int(alive.size), "verified": verified, "checked": verdicts}

    found = transport.bcast(on_root(transport, compare))
    assert found is not None  # rank 0 compared
    return found


def write_categories(path: Path, alive: IntGlobal) -> None:
    """Write images as the challenge does: one a line, counted from 1.

    Raises:
        InputError: the file cannot be written.
    """
    beside = path.with_name(path.name + ".new")
    try:
        beside.write_text("".join(f"{image + 1}\n" for image in alive.tolist()))
        beside.rename(path)
    except OSError as err:
        raise InputError(f"{path}: cannot be written: {err.strerror or err}; give another file") from err
