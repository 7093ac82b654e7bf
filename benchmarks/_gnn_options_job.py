"""The ranks of `gnn_options.py`: every alternative takes some steps in its turn."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from _gnn_peers_job import Ours, as_it_is

from sparsecomm.apps.gnn.settings import settings_of
from sparsecomm.apps.gnn.share import bring_dataset
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.collectives.transport.mpi import MpiTransport
from sparsecomm.collectives.transport.open import detect_topology
from sparsecomm.launch.cluster.names import parse_bandwidth


@dataclass(frozen=True, slots=True)
class Alternative:
    """What a step does.

    Args:
        changes: of the settings.
        strategy: of the product.
        without: the alternative that differs in the option alone.
    """

    changes: dict[str, Any]
    strategy: str = "auto"
    without: str = ""


# Stale rows are whole ones: `auto` may send partial sums instead, so that it is beside it twice.
ALTERNATIVES: Final = {
    "auto": Alternative({}),
    "auto --amp": Alternative({"amp": True}, without="auto"),
    "hierarchical": Alternative({}, "hierarchical"),
    "hierarchical --stale 1": Alternative({"stale": 1}, "hierarchical", without="hierarchical"),
    "hierarchical --stale 2": Alternative({"stale": 2}, "hierarchical", without="hierarchical"),
}
PAUSE_S: Final = 0.05
LEAD_IN: Final = 2  # steps until rows are as stale as they get


def run(args: argparse.Namespace) -> None:
    """Measure and write the results; collective over the job."""
    torch.set_num_threads(1)
    settings = settings_of("gcn", hidden=args.hidden, layers=args.layers, dropout=0.0)
    with MpiTransport() as transport:
        topology = detect_topology(transport)
        if topology.num_nodes > 1:
            topology = as_it_is(topology, parse_bandwidth(args.bandwidth))
        share = bring_dataset(args.cut, settings, topology, transport)
        ours = {
            name: Ours(share, replace(settings, **one.changes), one.strategy, topology, transport)
            for name, one in ALTERNATIVES.items()
        }
        times: dict[str, list[float]] = {name: [] for name in ours}
        begun = {name: one.all_bytes() for name, one in ours.items()}
        for _ in range(1 + args.rounds):
            for name, one in ours.items():
                times[name].append(_turn(one, args.steps, transport))
        num_steps = (1 + args.rounds) * (LEAD_IN + args.steps)
        moved = {name: (one.all_bytes() - begun[name]) / num_steps for name, one in ours.items()}
        found = {name: _found(name, times) | {"bytes": moved[name]} for name in ours}
        for name, one in ours.items():
            found[name] |= {"loss": one.step(), "strategy": one.strategy}
        if transport.rank == 0:
            args.results.write_text(json.dumps(found))
        for one in ours.values():
            one.close()


def _turn(one: Ours, steps: int, transport: Transport) -> float:
    """Return seconds a step of the slowest rank; as many stale rows are waited for as are sent."""
    transport.barrier()
    time.sleep(PAUSE_S)  # the links' bursts fill again, for every alternative alike
    for _ in range(LEAD_IN):
        one.step()
    transport.barrier()
    begin = time.perf_counter()
    for _ in range(steps):
        one.step()
    return float(transport.reduce(np.array([time.perf_counter() - begin]), "max")[0]) / steps


def _found(name: str, times: dict[str, list[float]]) -> dict[str, Any]:
    mine, without = np.array(times[name][1:]), ALTERNATIVES[name].without
    ratios = np.array(times[without or name][1:]) / mine
    return {
        "seconds": float(np.median(mine)),
        "rounds": mine.tolist(),
        "without": without,
        "faster": np.quantile(ratios, [0.25, 0.5, 0.75]).tolist(),
    }
