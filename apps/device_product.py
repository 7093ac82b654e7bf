"""A distributed matrix times a block on a GPU."""

from __future__ import annotations

import numpy as np

from sparsecomm.arrays import DeviceArray, as_device, current_stream, device_module, new_event, pinned
from sparsecomm.collectives.device import DeviceGather, DeviceScatter
from sparsecomm.collectives.device_graphs import Graphs
from sparsecomm.collectives.device_levels import DeviceLevels, LevelGather, LevelScatter
from sparsecomm.collectives.device_links import Choice, DeviceLinks, DeviceTransport
from sparsecomm.collectives.exchange import Exchange
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.collectives.wire import RowFormat, WireDtype
from sparsecomm.cost import CostModel
from sparsecomm.errors import InputError
from sparsecomm.kernels import Block
from sparsecomm.kernels.cuda import DeviceMatrix
from sparsecomm.plan import RankPlan
from sparsecomm.product import RankProduct

FourBlocks = tuple[Block, Block, Block, Block]
Term = tuple[DeviceMatrix, DeviceArray, DeviceArray]


class DeviceProduct:
    """Multiplies on the current GPU of each rank, blocks uploaded once, everything on the caller's current stream.

    Args:
        product: this rank's part of the product.
        transport: over its ranks.
        num_levels: of the topology.
        any_via: whether some rank's via block has nonzeros.
        wire_dtype: what rows are rounded to on their way.
        device_transport: what rows on GPUs go by, see `DeviceLinks`.
        graphs: whether kernels of a product that comes again are launched as CUDA graphs, see `Graphs`.
        cost: what `auto` chooses by where rows on GPUs were timed; the same on all ranks.

    Note: Collective over comm.
    """

    def __init__(
        self,
        product: RankProduct,
        transport: Transport,
        num_levels: int,
        any_via: bool,
        wire_dtype: WireDtype,
        device_transport: DeviceTransport = "auto",
        graphs: bool = False,
        cost: CostModel | None = None,
    ) -> None:
        self._product, self._transport, self._any_via = product, transport, any_via
        self._num_levels, self._wire = num_levels, wire_dtype
        self._done = new_event()  # of the product before, which may have been on another stream
        self._blocks: dict[int, DeviceMatrix] = {}
        self._graphs = Graphs(graphs)
        self._links = DeviceLinks(transport, device_transport, num_levels, cost)
        self._choices: dict[str, tuple[Choice, ...]] = {}
        self._exchanges: list[Exchange | DeviceLevels] = []
        self._gathers: dict[tuple[str, int, str], DeviceGather | LevelGather] = {}
        self._scatters: dict[tuple[str, int, str], DeviceScatter | LevelScatter] = {}

    def forget_values(self) -> None:
        """Upload the blocks anew when they are next used: their values have changed."""
        self._done.synchronize()
        self._graphs.forget()
        self._blocks.clear()

    def multiply(self, x: DeviceArray, plans: tuple[str, str], blocks: FourBlocks) -> DeviceArray:
        """Multiply as `DistMatrix` does on the host: what others wait for comes first, the own block meanwhile."""
        gather, scatter = (getattr(self._product, plan) for plan in plans)
        x = as_device(x)
        current_stream().wait_event(self._done)
        own, in_, out, via = (self._uploaded(block) for block in blocks)
        if x.dtype != own.dtype:
            raise InputError(f"X is {x.dtype} on the GPU, but the matrix is {own.dtype}; convert one of them")
        x = device_module().ascontiguousarray(x)
        y = device_module().empty((scatter.num_own, x.shape[1]), x.dtype)
        partials = device_module().empty((scatter.num_ghost, x.shape[1]), x.dtype)
        fetch = self._gather(plans[0], gather, x) if gather.stages else None
        send = self._scatter(plans[1], scatter, x) if scatter.stages else None
        if fetch:
            fetch.pack(x)
        part, places = (out, own, in_, via, x.shape), tuple(int(block.data.ptr) for block in (x, y, partials))
        if send and not self._any_via:
            self._graphs.run((*part, "out"), places, lambda: out.multiply(x, partials))
            send.pack(partials)
            self._graphs.run((*part, "own"), places, lambda: own.multiply(x, y))
        else:
            self._graphs.run((*part, "all"), places, lambda: _both((out, x, partials), (own, x, y)))
        if fetch:
            fetch.start()
        early = send.start() if send and not self._any_via else []
        if fetch:
            ghosts = fetch.wait(early)
            add = (in_, ghosts, y), (via, ghosts, partials)
            self._graphs.run((*part, "ghosts"), (*places, int(ghosts.data.ptr)), lambda: _both(*add, keep=True))
        if send:
            if self._any_via:
                send.pack(partials)
                send.start()
            send.add(y)
        self._done.record(current_stream())
        return y

    def close(self) -> None:
        """Free the exchanges.

        Note: Collective over comm.
        """
        self._done.synchronize()
        self._graphs.forget()
        for exchange in self._exchanges:
            exchange.close()
        self._links.close()

    @property
    def exchanges(self) -> list[Exchange | DeviceLevels]:
        """Those made so far, for what they have moved."""
        return self._exchanges

    @property
    def num_graphs(self) -> int:
        """How many CUDA graphs are launched in place of kernels."""
        return self._graphs.number

    @property
    def choices(self) -> dict[str, tuple[Choice, ...]]:
        """What each level goes by, for every plan used so far."""
        return self._choices

    def _uploaded(self, block: Block) -> DeviceMatrix:
        if id(block) not in self._blocks:
            self._blocks[id(block)] = DeviceMatrix(block.matrix)
        return self._blocks[id(block)]

    def _gather(self, name: str, plan: RankPlan, x: DeviceArray) -> DeviceGather | LevelGather:
        key = (name, x.shape[1], str(x.dtype))
        if key not in self._gathers:
            made = self._exchange(name, plan, x, adds=False)
            self._gathers[key] = (
                LevelGather(made) if isinstance(made, DeviceLevels) else DeviceGather(made, self._graphs)
            )
        return self._gathers[key]

    def _scatter(self, name: str, plan: RankPlan, x: DeviceArray) -> DeviceScatter | LevelScatter:
        key = (name, x.shape[1], str(x.dtype))
        if key not in self._scatters:
            made = self._exchange(name, plan, x, adds=True)
            self._scatters[key] = (
                LevelScatter(made) if isinstance(made, DeviceLevels) else DeviceScatter(made, self._graphs)
            )
        return self._scatters[key]

    def _exchange(self, name: str, plan: RankPlan, x: DeviceArray, adds: bool) -> Exchange | DeviceLevels:
        width, dtype = x.shape[1], np.dtype(str(x.dtype))
        if name not in self._choices:
            self._choices[name] = self._links.choose(plan, RowFormat.of(width, dtype, self._wire, self._num_levels))
        names = [choice.name for choice in self._choices[name]]
        made: Exchange | DeviceLevels
        if {names[stage.level] for stage in plan.stages} <= {"pinned"}:
            made = Exchange(
                plan, self._transport, width, dtype, wire_dtype=self._wire, num_levels=self._num_levels, name=name,
                allocate=pinned,
            )  # fmt: skip
        else:
            made = DeviceLevels(plan, self._transport, self._links, names, width, dtype, adds, self._graphs)
        self._exchanges.append(made)
        return made


def _both(first: Term, second: Term, keep: bool = False) -> None:
    """Enqueue two products, each a matrix, X and what it is written or added to."""
    for matrix, x, out in (first, second):
        matrix.multiply(x, out, keep=keep)
