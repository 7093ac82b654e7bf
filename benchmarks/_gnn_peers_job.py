"""The ranks of `gnn_peers.py`: ours and the version by hand, each in turn in every round."""

from __future__ import annotations

import argparse
import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np
import torch
import torch.distributed
from scipy.sparse import csr_array

from sparsecomm.apps.gnn.score import accuracy
from sparsecomm.apps.gnn.settings import Settings, settings_of
from sparsecomm.apps.gnn.share import GraphShare, bring_dataset
from sparsecomm.apps.torch.graph import Graph
from sparsecomm.apps.torch.local import LocalMatrix
from sparsecomm.apps.torch.models import GraphNet
from sparsecomm.apps.torch.training import Trainer
from sparsecomm.collectives.transport.mpi import MpiTransport
from sparsecomm.collectives.transport.open import detect_topology
from sparsecomm.launch.cluster.names import parse_bandwidth
from sparsecomm.topology import Topology

Json = dict[str, Any]

WARM_UPS: Final = 2
BY_HAND: Final = "gloo by hand"
# Latencies and the rate inside a node as a ping-pong between two ranks of such a cluster has shown them (2 cores).
NODE_S, NODE_BPS, NETWORK_S = 7e-6, 3.3e9, 67e-6


def run(args: argparse.Namespace) -> None:
    """Measure and write the results; collective over the job."""
    torch.set_num_threads(1)
    settings = settings_of("gcn", hidden=args.hidden, dropout=0.0)
    with MpiTransport() as transport:
        topology = as_it_is(detect_topology(transport), parse_bandwidth(args.bandwidth))
        _join(transport)
        share = bring_dataset(args.cut, settings, topology, transport)
        ours = {
            "auto": Ours(share, settings, "auto", topology, transport),
            "auto, no cache": Ours(share, replace(settings, cache=False), "auto", topology, transport),
        }
        by_hand = ByHand(share, settings, ours["auto"].weights())
        steps = {name: one.step for name, one in ours.items()} | {BY_HAND: by_hand.step}
        moved = {name: one.network_bytes for name, one in ours.items()}
        moved[BY_HAND] = lambda: by_hand.network_bytes(topology, transport)
        times, losses, network = _measure(steps, moved, args.rounds, transport)
        if transport.rank == 0:
            found = _found(times, losses, network)
            found |= {"chosen": ours["auto"].strategy, "edges": share.info.edges}
            found["facts"] = {"ranks": str(transport.num_ranks), "torch": torch.__version__}
            args.results.write_text(json.dumps(found))
        for one in ours.values():
            one.close()
        torch.distributed.destroy_process_group()


class Ours:
    """A model of this library, in training."""

    def __init__(
        self, share: GraphShare, settings: Settings, strategy: str, topology: Topology, transport: MpiTransport
    ) -> None:
        width = min(settings.widths(share.info.features, share.info.classes)[-2:])
        self._graph = Graph(share.rows, share.layouts, topology, transport, strategy=strategy, width=width)
        self._model = GraphNet(self._graph, share.features, share.info.classes, settings)
        self._trainer = Trainer(self._graph, self._model, share.nodes, settings, transport, accuracy)
        self._transport, self.strategy = transport, self._graph.matrix.product.strategy

    def weights(self) -> list[torch.Tensor]:
        return [weight.detach().clone() for weight in self._model.parameters()]

    def step(self) -> float:
        loss = self._trainer.step()
        self._trainer.epoch += 1
        return loss

    def network_bytes(self) -> int:
        return self._bytes_sent()[-1]

    def all_bytes(self) -> int:
        return sum(self._bytes_sent())

    def _bytes_sent(self) -> list[int]:
        return [int(sent) for sent in self._transport.reduce(self._graph.executed.bytes_sent, "sum")]

    def close(self) -> None:
        self._trainer.close()
        self._graph.close()


class ByHand:
    """GCN as one writes it on `all_to_all_single`: A (X W), every needed row to every rank that needs it, once.

    The local product is that of the library, so that only what moves differs.
    """

    def __init__(self, share: GraphShare, settings: Settings, weights: list[torch.Tensor]) -> None:
        rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
        own, offsets = share.layouts.rows.own_rows(rank), share.layouts.rows.offsets
        cols = share.rows.indices.astype(np.int64)
        away = (cols < own.start) | (cols >= own.stop)
        needed = np.unique(cols[away])
        self._recv = np.bincount(np.searchsorted(offsets, needed, side="right") - 1, minlength=ranks)
        local = np.where(away, len(own) + np.searchsorted(needed, cols), cols - own.start)
        shape = (len(own), len(own) + needed.size)
        self._matrix = LocalMatrix(csr_array((share.rows.data, local, share.rows.indptr), shape=shape))
        send = torch.empty(ranks, dtype=torch.int64)
        torch.distributed.all_to_all_single(send, torch.from_numpy(self._recv))
        self._send = send.numpy()
        asked = torch.empty(int(self._send.sum()), dtype=torch.int64)
        _all_to_all(asked, torch.from_numpy(needed), self._send, self._recv)
        self._rows, self._rank, self._moved = asked - own.start, rank, 0
        self._x = torch.from_numpy(share.features.toarray())
        self._weights = [torch.nn.Parameter(weight) for weight in weights]
        self._labels, self._train = (torch.from_numpy(a) for a in (share.nodes.labels, share.nodes.train))
        count = torch.tensor(int(share.nodes.train.sum()))
        torch.distributed.all_reduce(count)
        self._num_train = int(count)
        first, second = self._weights
        groups = [{"params": [first], "weight_decay": settings.weight_decay}, {"params": [second]}]
        self._optimiser = torch.optim.Adam(groups, lr=settings.learning_rate, foreach=False)

    def step(self) -> float:
        self._optimiser.zero_grad()
        first, second = self._weights
        scores = self._mixed(self._mixed(self._x @ first).relu() @ second)
        loss = torch.nn.functional.cross_entropy(scores[self._train], self._labels[self._train], reduction="sum")
        loss = loss / self._num_train
        loss.backward()
        for weight in self._weights:
            torch.distributed.all_reduce(weight.grad)
        self._optimiser.step()
        total = loss.detach()
        torch.distributed.all_reduce(total)
        return float(total)

    def network_bytes(self, topology: Topology, transport: MpiTransport) -> int:
        """Return what all ranks have sent to other nodes so far."""
        far = topology.rank_to_node != topology.rank_to_node[self._rank]
        rows = np.array([self._send[far].sum()], dtype=np.int64)
        return int(transport.reduce(rows, "sum")[0]) * self._moved

    def _mixed(self, x: torch.Tensor) -> torch.Tensor:
        return self._matrix(_Ghosts.apply(x, self))

    def gather(self, x: torch.Tensor) -> torch.Tensor:
        self._moved += x.shape[1] * x.element_size()
        ghosts = x.new_empty(int(self._recv.sum()), x.shape[1])
        _all_to_all(ghosts, x[self._rows], self._recv, self._send)
        return torch.cat([x, ghosts])

    def scatter(self, grad: torch.Tensor) -> torch.Tensor:
        self._moved += grad.shape[1] * grad.element_size()
        num_own = len(grad) - int(self._recv.sum())
        arrived = grad.new_empty(int(self._send.sum()), grad.shape[1])
        _all_to_all(arrived, grad[num_own:], self._send, self._recv)
        return grad[:num_own].index_add(0, self._rows, arrived)


class _Ghosts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, by_hand: ByHand) -> torch.Tensor:
        ctx.by_hand = by_hand
        return by_hand.gather(x)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        return ctx.by_hand.scatter(grad), None


def _all_to_all(out: torch.Tensor, given: torch.Tensor, out_counts: Any, given_counts: Any) -> None:
    torch.distributed.all_to_all_single(out, given.contiguous(), out_counts.tolist(), given_counts.tolist())


def _join(transport: MpiTransport) -> None:
    """Start gloo on the links of the cluster."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "eth0")
    with socket.socket() as free:
        free.bind(("", 0))
        found = socket.gethostbyname(socket.gethostname()), free.getsockname()[1]
    address, port = transport.bcast(found)
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://{address}:{port}", rank=transport.rank, world_size=transport.num_ranks
    )


def as_it_is(topology: Topology, rate_bps: float) -> Topology:
    node, network = topology.levels
    levels = (
        replace(node, latency_s=NODE_S, bandwidth_Bps=NODE_BPS),
        replace(network, latency_s=NETWORK_S, bandwidth_Bps=rate_bps / 8),
    )
    return replace(topology, levels=levels)


def _measure(
    steps: dict[str, Callable[[], float]], moved: dict[str, Callable[[], int]], rounds: int, transport: MpiTransport
) -> tuple[dict[str, Any], dict[str, list[float]], dict[str, int]]:
    """Return seconds of the slowest rank and losses in every round, and the network bytes of one step.

    Note: Collective over comm.
    """
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    losses: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(WARM_UPS + rounds):
        if number == WARM_UPS + rounds - 1:
            before = {name: count() for name, count in moved.items()}
        for name, step in steps.items():
            transport.barrier()
            time.sleep(0.05)  # the links' bursts fill again, for every alternative alike
            transport.barrier()
            begin = time.perf_counter()
            losses[name].append(step())
            seconds[name].append(time.perf_counter() - begin)
    slowest = {name: transport.reduce(np.array(mine[WARM_UPS:]), "max") for name, mine in seconds.items()}
    return slowest, losses, {name: count() - before[name] for name, count in moved.items()}


def _found(times: dict[str, Any], losses: dict[str, list[float]], network: dict[str, int]) -> Json:
    reference = np.array(losses[BY_HAND])
    difference = max(float(np.abs(np.array(found) / reference - 1).max()) for found in losses.values())
    alternatives = {
        name: {
            "seconds": float(np.median(found)),
            "rounds": found.tolist(),
            "faster": np.quantile(times[BY_HAND] / found, [0.25, 0.5, 0.75]).tolist(),
            "network_bytes": network[name],
        }
        for name, found in times.items()
    }
    return {"alternatives": alternatives, "difference": difference}
