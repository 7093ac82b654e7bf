"""The object of `sparsecomm sdnn --json`."""

from __future__ import annotations

import numpy as np

from sparsecomm.apps.sdnn.exchanges import Exchanges
from sparsecomm.apps.sdnn.inference import Run
from sparsecomm.apps.sdnn.memory import peak_bytes
from sparsecomm.apps.sdnn.prepared import Prepared
from sparsecomm.apps.sdnn.problem import Problem, SdnnOptions
from sparsecomm.apps.sdnn.weights import Weights
from sparsecomm.apps.summary import Json, topology_json
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.topology import Topology


def report_json(
    problem: Problem, options: SdnnOptions, topology: Topology, ready: Prepared, runs: list[Run], transport: Transport
) -> Json:
    """Return what was run and how long it took; a run takes as long as its slowest rank.

    The rate is the challenge's: all edges of all layers for every image, also those that died, over the seconds of
    inference.

    Note: Collective over comm.
    """
    network, inputs = problem.network, problem.inputs
    edges = sum(ready.edges[layer % network.num_distinct] for layer in range(network.num_layers))
    times = transport.reduce(np.array([run.seconds for run in runs]), "max")
    seconds = float(np.median(times))
    rank, groups = transport.rank, ready.groups
    speaks = rank == groups.first_ranks[groups.rank_to_group[rank]]
    alive = transport.reduce(runs[-1].layer_alive * int(speaks), "sum")
    return {
        "schema": "sparsecomm.sdnn/1",
        "network": {
            "name": network.name,
            "neurons": network.neurons,
            "layers": network.num_layers,
            "distinct_layers": network.num_distinct,
            "edges": edges,
            "bias": network.bias,
        },
        "inputs": {"name": inputs.name, "count": inputs.count},
        "mode": options.mode,
        "ranks": transport.num_ranks,
        "groups": int(groups.sizes.size),
        "topology": topology_json(topology),
        "partition": options.method,
        "strategy": ready.strategy,
        "width": options.width,
        "edges_per_s": inputs.count * edges / seconds,
        "seconds": {"median": seconds, "min": float(times.min()), "max": float(times.max())},
        "cpu_seconds": float(np.median(transport.reduce(np.array([run.cpu_s for run in runs]), "max"))),
        "layer_seconds": transport.reduce(runs[-1].layer_s, "max").tolist(),
        "layer_alive": alive.tolist(),
        "rebalanced_images": runs[-1].moved,
    }


def executed_json(exchanges: Exchanges, repeat: int, topology: Topology, transport: Transport) -> Json:
    """Return rows, bytes and messages that one run moved at each level; a row is a neuron for one batch of images.

    Note: Collective over comm.
    """
    counted, names = exchanges.executed(), topology.level_names

    def per_level(noun: str) -> dict[str, int]:
        total = transport.reduce(getattr(counted, f"{noun}_sent"), "sum")
        return {name: int(value) // repeat for name, value in zip(names, total, strict=True)}

    found: Json = {noun: per_level(noun) for noun in ("rows", "bytes", "messages")}
    return found | {"exchanges": {"made": exchanges.made, "used": exchanges.used}}


def memory_json(limit: int | None, images: int, count: int, weights: Weights, transport: Transport) -> Json:
    """Return the most memory that a process used so far, and what was read from disk to keep it low.

    Note: Collective over comm.
    """
    most = transport.reduce(np.array([peak_bytes(), weights.num_bytes, int(weights.in_file)], dtype=np.int64), "max")
    read = np.array([weights.streamed.num_bytes, weights.streamed.requests], dtype=np.int64)
    total = transport.reduce(read, "sum")
    waited = transport.reduce(np.array([weights.streamed.wait_s]), "max")
    return {
        "limit": limit,
        "peak": int(most[0]),
        "weights": int(most[1]),
        "streamed": bool(most[2]),
        "read_bytes": int(total[0]),
        "read_requests": int(total[1]),
        "read_wait_s": float(waited[0]),
        "images_at_once": min(images, count),
    }
