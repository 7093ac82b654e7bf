"""All layers over all images, on every rank of a job."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np

from sparsecomm.apps.sdnn.batches import Batches, width_for
from sparsecomm.apps.sdnn.exchanges import Exchanges
from sparsecomm.apps.sdnn.groups import Groups
from sparsecomm.apps.sdnn.inputs import Inputs
from sparsecomm.apps.sdnn.layers import run_layer
from sparsecomm.apps.sdnn.rebalance import rebalance
from sparsecomm.apps.sdnn.weights import Weights
from sparsecomm.apps.source import Say, quiet
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.plan import RankPlan
from sparsecomm.typing import Bools, Floats, IntGlobal

# Packing anew costs about a layer's thirtieth; it is done once this share of the columns is spared by it.
_WORTH_PACKING = 7 / 8


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """What one pass over all images gave, on one rank.

    Args:
        alive: int64 images of this rank's group that end with an activation, any order.
        layer_s: (num_layers,) seconds, rounds added.
        layer_alive: (num_layers,) int64 images of this rank's group that live after each layer.
        seconds: all layers and rounds, with packing, exchanges and rebalancing; inputs not counted.
        cpu_s: likewise, of the processors that this process kept busy.
        moved: images that were sent to another group, all groups together.
    """

    alive: IntGlobal
    layer_s: Floats
    layer_alive: IntGlobal
    seconds: float
    cpu_s: float
    moved: int


@dataclass(slots=True)
class _State:
    """Where a round stands.

    Args:
        batches: images of this rank's group, dead ones among them until they are packed away.
        columns: (num_groups,) images in the batches of every group.
    """

    batches: Batches
    columns: IntGlobal
    alive: Bools = field(init=False)

    def __post_init__(self) -> None:
        self.alive = np.ones(self.batches.ids.size, dtype=np.bool_)


@dataclass(slots=True)
class _Tally:
    layer_s: Floats
    layer_alive: IntGlobal
    alive: list[IntGlobal] = field(default_factory=list)
    seconds: float = 0.0
    cpu_s: float = 0.0
    moved: int = 0


class Inference:
    """A network ready to run on one rank.

    Args:
        sequence: the distinct layer that every layer has the weights of.
        bias: of every neuron.
        weights: of this rank, by distinct layer.
        plans: key and plan of every distinct layer; empty where every rank has all neurons.
        groups: who has which neurons and images.
        exchanges: made as they are needed.
        transport: over the ranks.
        width: most images in a batch.
        rebalance_after: layers after which images are dealt anew, 0 for never.
        say: told of the layer that begins.
    """

    def __init__(
        self,
        sequence: list[int],
        bias: float,
        weights: Weights,
        plans: list[tuple[str, RankPlan]],
        groups: Groups,
        exchanges: Exchanges,
        transport: Transport,
        *,
        width: int = 64,
        rebalance_after: int = 0,
        say: Say = quiet,
    ) -> None:
        self._sequence, self._bias, self._weights, self._plans = sequence, bias, weights, plans
        self._groups, self._exchanges, self._transport = groups, exchanges, transport
        self._width, self._rebalance_after, self._say = width, rebalance_after, say
        self._group = int(groups.rank_to_group[transport.rank])
        self._num_own = len(groups.layout.own_rows(transport.rank))

    def run(self, inputs: Inputs, in_memory: int) -> Run:
        """Run all images through all layers.

        Args:
            inputs: the images.
            in_memory: images of a group that are in memory at once, the same on all ranks.

        Note: Collective over comm.
        """
        layers = len(self._sequence)
        tally = _Tally(np.zeros(layers), np.zeros(layers, dtype=np.int64))
        images = [self._groups.images_of(group, inputs.count) for group in range(self._groups.sizes.size)]
        rounds = max(1, -(-max(mine.size for mine in images) // in_memory))
        for number in range(rounds):
            now = slice(number * in_memory, (number + 1) * in_memory)
            counts = np.array([mine[now].size for mine in images], dtype=np.int64)
            batches = self._begin(inputs, images[self._group][now], self._largest(counts))
            self._transport.agree(None)  # a barrier: reading and drawing images is not timed
            begin, cpu_begin = time.perf_counter(), time.process_time()
            self._layers(_State(batches, counts), tally, f"round {number + 1} of {rounds}, " if rounds > 1 else "")
            tally.seconds += time.perf_counter() - begin
            tally.cpu_s += time.process_time() - cpu_begin
        alive = np.concatenate(tally.alive)
        return Run(alive, tally.layer_s, tally.layer_alive, tally.seconds, tally.cpu_s, tally.moved)

    def _begin(self, inputs: Inputs, ids: IntGlobal, largest: int) -> Batches:
        """Return the batches of a round, filled with its images."""
        batches = Batches(ids, self._num_own, width_for(largest, self._width))
        own = self._groups.own_neurons(self._transport.rank)
        place = np.full(self._groups.neurons, -1, dtype=np.int64)
        place[own] = np.arange(own.size)
        for begin in range(0, ids.size, batches.width):  # a block at a time: drawn images need memory of their own
            found = inputs.pixels(ids[begin : begin + batches.width])
            mine = np.flatnonzero(place[found.neuron] >= 0)
            batches.fill(begin + found.image[mine], place[found.neuron[mine]], found.value[mine])
        return batches

    def _layers(self, state: _State, tally: _Tally, prefix: str) -> None:
        """Run the images of a round through all layers."""
        num_layers, living = len(self._sequence), self._largest(state.columns)
        for layer in range(num_layers):
            self._say(f"{prefix}layer {layer + 1} of {num_layers}, {living:,} images alive in the largest group")
            begin = time.perf_counter()
            counts = self._layer(layer, state)
            if layer + 1 == self._rebalance_after and not self._one_group:
                tally.moved += self._rebalance(state, counts)
            else:
                self._pack(state, counts)
            living = self._largest(counts)
            tally.layer_alive[layer] += int(state.alive.sum())
            tally.layer_s[layer] += time.perf_counter() - begin
        tally.alive.append(state.batches.ids[state.alive])

    def _layer(self, layer: int, state: _State) -> IntGlobal:
        """Run one layer and return the living images of every group; of this one only, where ranks are alone."""
        batches, distinct = state.batches, self._sequence[layer]
        if self._largest(state.columns) == 0:
            return state.columns
        exchange = None
        if self._plans:
            key, plan = self._plans[distinct]
            exchange = self._exchanges.get(key, plan, batches.width) if plan.stages else None
        if batches.blocks:
            following = self._sequence[(layer + 1) % len(self._sequence)]
            share = self._weights.get(distinct, following)
            state.alive = run_layer(share, batches, exchange, self._bias, batches.empty())
        return self._agree_on_alive(state)

    def _agree_on_alive(self, state: _State) -> IntGlobal:
        """Count an image as alive where it has an activation on any rank of its group.

        Note: Collective over comm, unless ranks are alone.
        """
        counts = np.zeros_like(state.columns)
        if self._groups.alone:
            counts[self._group] = state.alive.sum()
            return counts
        cuts = np.concatenate([[0], np.cumsum(state.columns)])
        flags = np.zeros(int(cuts[-1]), dtype=np.uint8)
        mine = slice(int(cuts[self._group]), int(cuts[self._group + 1]))
        flags[mine] = state.alive
        flags = self._transport.reduce(flags, "max")
        state.alive = flags[mine].astype(np.bool_)
        before: IntGlobal = np.concatenate([[0], np.cumsum(flags, dtype=np.int64)])
        living: IntGlobal = before[cuts[1:]] - before[cuts[:-1]]
        return living

    def _pack(self, state: _State, counts: IntGlobal) -> None:
        """Drop dead images once that spares enough; grouped ranks decide alike."""
        largest, width = self._largest(counts), state.batches.width
        packed = width_for(largest, self._width)
        if -(-largest // packed) * packed <= _WORTH_PACKING * -(-self._largest(state.columns) // width) * width:
            state.batches = state.batches.select(np.flatnonzero(state.alive), packed)
            state.columns = counts
            state.alive = state.alive[state.alive]

    def _rebalance(self, state: _State, counts: IntGlobal) -> int:
        """Deal the living images anew and return how many changed their group.

        Note: Collective over comm.
        """
        if self._groups.alone:
            counts = self._transport.collect(counts[self._group : self._group + 1])
        state.batches, state.columns = rebalance(
            state.batches, np.flatnonzero(state.alive), counts, self._groups, self._transport, self._width
        )
        state.alive = np.ones(state.batches.ids.size, dtype=np.bool_)
        return int(np.maximum(counts - state.columns, 0).sum())

    @property
    def _one_group(self) -> bool:
        return self._groups.sizes.size == 1

    def _largest(self, counts: IntGlobal) -> int:
        """Return the images of the largest group that this rank has to keep step with."""
        return int(counts[self._group] if self._groups.alone else counts.max())
