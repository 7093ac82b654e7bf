"""A sparse matrix spread over the ranks of a job."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import closing
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from sparsecomm.apps.blocks import Blocks
from sparsecomm.apps.chunks import Chunks, NumChunks, Tuning, wrong_chunks
from sparsecomm.apps.exchanges import Exchanges
from sparsecomm.apps.host_product import HostProduct
from sparsecomm.apps.part import Way
from sparsecomm.apps.row_planner import misfit, plan_rows
from sparsecomm.apps.transposed import TransposedMatrix
from sparsecomm.apps.whole import collect, distribute
from sparsecomm.arrays import check_array, on_device
from sparsecomm.collectives.exchange import Exchange
from sparsecomm.collectives.executed import Executed
from sparsecomm.collectives.guard import ClosedTogether
from sparsecomm.collectives.strategy import Strategy
from sparsecomm.collectives.transport.open import open_transport
from sparsecomm.collectives.wire import WireDtype
from sparsecomm.cost import CostModel
from sparsecomm.errors import InputError
from sparsecomm.layout import Layouts
from sparsecomm.plan_cache import PlanCache
from sparsecomm.product import RankProduct
from sparsecomm.topology import Topology

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator

    from sparsecomm.apps.device_product import DeviceProduct
    from sparsecomm.collectives.device_links import Choice, DeviceTransport

Dense = npt.NDArray[Any]


class DistMatrix(ClosedTogether):
    """A matrix whose rows are spread over ranks, ready to multiply dense blocks.

    Every rank holds blocks {own, ghost} rows x {own, ghost} columns, and
    `Y = A_own X + A_in G(X) + S(A_out X + A_via G(X))`, where G gathers ghost rows of X and S scatters partial rows of
    Y. X and Y are this rank's own rows, (num_own, k) or (num_own,).

    Args:
        rows: (own rows, all columns) in new numbering, columns ascending in every row.
        product: this rank's part of the product.
        topology: of the job.
        comm: an mpi4py communicator or a transport, duplicated; None is the world. With a transport of `num_shared`
            levels X and Y of a node lie in shared memory, and rows inside it are multiplied where they are.
        wire_dtype: what rows are rounded to on their way, one for all levels or one for each, see `Exchange`; None
            sends them as they are.
        rounds: post messages in rounds in which no rank sends or receives twice; see `Exchange`.
        chunks: of columns that products of host memory are cut into: ghosts of some are multiplied while those of
            others travel. As many messages for each; no bit of a result depends on it, but for rows that travel as
            `int8`, whose scale is then that of a chunk. `auto` or None: numbers that `cost` predicts to be good take
            turns in the first products of each width, and the fastest is kept.
        cost: None is that of the topology.
        device_transport: what rows of blocks on GPUs go by, `ipc`, `nccl`, `mpi` or `pinned`, one for all levels or one
            for each; `auto` tries what there is. See docs/gpu.md.
        graphs: launch kernels of products on GPUs that come again with the same memory as CUDA graphs.

    Raises:
        InputError: on every rank, when the parts do not fit each other.

    Note: Collective over comm.
    """

    def __init__(
        self,
        rows: csr_array[Any],
        product: RankProduct,
        topology: Topology,
        comm: object | None = None,
        *,
        wire_dtype: WireDtype = None,
        rounds: bool = False,
        chunks: NumChunks = 1,
        cost: CostModel | None = None,
        device_transport: DeviceTransport = "auto",
        graphs: bool = False,
    ) -> None:
        self.transport = open_transport(comm)
        self.transport.agree(misfit(rows, product.layouts, topology, self.transport) or wrong_chunks(chunks))
        self.product, self.topology, self.dtype = product, topology, rows.dtype
        self._blocks = Blocks(rows, product, topology, self.transport)
        self._wire, self._device_options = wire_dtype, (device_transport, graphs, cost)
        self._chunks = Chunks(chunks, cost or CostModel(topology), product, self._blocks, self.transport)
        self._exchanges = Exchanges(product, topology, self.transport, wire_dtype, rounds)
        self._host = HostProduct(self._exchanges, rows.dtype, self._chunks)
        self._on_device: DeviceProduct | None = None
        self._closed = False

    @staticmethod
    def from_rows(
        rows: csr_array[Any],
        layouts: Layouts,
        topology: Topology,
        comm: object | None = None,
        *,
        strategy: str | Strategy = "auto",
        width: int = 64,
        wire_dtype: WireDtype = None,
        plans: PlanCache | None = None,
        guard: bool = False,
        row_mode: bool = True,
        device_transport: DeviceTransport = "auto",
        chunks: NumChunks = 1,
        rounds: bool = False,
        cost: CostModel | None = None,
        graphs: bool = False,
    ) -> DistMatrix:
        """Plan in the job: each rank brings its own rows and nobody ever holds the whole matrix.

        Args:
            rows: (own rows, all columns) in new numbering.
            layouts: who owns rows and columns.
            topology: of the job.
            comm: an mpi4py communicator or a transport; None is the world.
            strategy: a name, a `Strategy`, or `auto` for the least predicted time at `width`.
            width: columns of X that `auto` predicts for.
            wire_dtype: what rows are rounded to on their way.
            plans: where plans are looked up and kept; None plans anew.
            guard: with `auto`, run the two plans predicted fastest against each other and keep the one that is. Sums
                are then added in an order that depends on times.
            row_mode: False multiplies every nonzero where its row is, so that `update_values` moves none of them.
            device_transport: what rows of blocks on GPUs go by.
            chunks: of columns that products are cut into; `auto` tries some.
            rounds: post messages in rounds in which no rank sends or receives twice.
            cost: predicts for `strategy` and `chunks`, on all ranks alike; None is that of the topology.
            graphs: launch kernels on GPUs as CUDA graphs.

        Raises:
            InputError: on every rank, when the parts do not fit each other or there is no such strategy.

        Note: Collective over comm.
        """
        transport = open_transport(comm)
        product = plan_rows(
            rows, layouts, topology, transport, strategy=strategy, width=width, plans=plans, guard=guard,
            row_mode=row_mode, cost=cost,
        )  # fmt: skip
        matrix = DistMatrix(
            rows, product, topology, transport, wire_dtype=wire_dtype, rounds=rounds, chunks=chunks, cost=cost,
            device_transport=device_transport, graphs=graphs,
        )  # fmt: skip
        transport.close()
        return matrix

    def __repr__(self) -> str:
        return (
            f"DistMatrix(shape={self.shape}, dtype={self.dtype}, rank={self.product.rank}, "
            f"strategy={self.product.strategy!r}, topology={self.topology.name!r})"
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the whole matrix."""
        return self.product.layouts.rows.num_rows, self.product.layouts.cols.num_rows

    @property
    def T(self) -> TransposedMatrix:
        """The transposed matrix, sharing blocks and plans with this one."""
        return TransposedMatrix(self, conjugate=False)

    @property
    def H(self) -> TransposedMatrix:
        """The conjugated transposed matrix."""
        return TransposedMatrix(self, conjugate=True)

    @property
    def waited_s(self) -> float:
        """Seconds in which this rank did nothing but communicate, in all products of host memory so far."""
        return self._host.waited.ns / 1e9

    def tuning(self, width: int, dtype: npt.DTypeLike | None = None, *, transposed: bool = False) -> Tuning:
        """Return into how many chunks of columns products of a width are cut, and how that was found.

        Note: Collective over comm, the first time.
        """
        way = self._reverse if transposed else self._forward
        return self._chunks.tuning(way.gather, width, np.dtype(dtype or self.dtype))

    @property
    def device_choices(self) -> dict[str, dict[str, Choice]]:
        """What every level goes by, and why, for each plan (`gather`, `scatter`) that has moved rows of GPUs."""
        names, used = [level.name for level in self.topology.levels], self._on_device
        found = used.choices if used is not None else {}
        return {plan: dict(zip(names, choices, strict=True)) for plan, choices in found.items()}

    @property
    def executed(self) -> Executed:
        """What this rank's exchanges have sent, received and copied since they were made."""
        on_device = self._on_device.exchanges if self._on_device else []
        return sum((exchange.executed for exchange in on_device), self._exchanges.executed)

    def __matmul__(self, x: Dense) -> Dense:
        """Return this rank's rows of A @ X.

        Args:
            x: (num_own_cols, k) or (num_own_cols,), this rank's rows of X; not modified. On a GPU (CuPy, or anything
                with `__cuda_array_interface__`), the product is made there and returned there, on the current stream.

        Note: Collective over comm.
        """
        return self._multiply(x, self._forward)

    def multiply_transposed(self, y: Dense) -> Dense:
        """Return this rank's rows of A.T @ Y; see `T`.

        Note: Collective over comm.
        """
        return self._multiply(y, self._reverse)

    def products(self, xs: Iterable[Dense], *, transposed: bool = False) -> Iterator[Dense]:
        """Yield this rank's rows of A @ X for several X, in their order.

        While one is multiplied, ghosts of the next one and sums of the one before are on their way, in three sets of
        buffers. Each result is that of `A @ X`, bit for bit.

        Args:
            xs: what `@` takes, in host memory; each is read before the product of the one before is yielded, and must
                not change before its own is.
            transposed: multiply with A.T.

        Raises:
            InputError: an X has other rows, or lies on a GPU.

        Note: Collective over comm, every step.
        """
        way, vectors = self._reverse if transposed else self._forward, deque[bool]()

        def blocks() -> Iterator[Dense]:
            for x in xs:
                if on_device(x):
                    raise InputError("products() interleaves blocks of host memory; on a GPU multiply one at a time")
                block = self._checked(x, way)
                vectors.append(x.ndim == 1)
                yield block

        with closing(self._host.products(blocks(), way)) as found:
            for y in found:
                yield y[:, 0] if vectors.popleft() else y

    def empty(self, width: int, dtype: npt.DTypeLike | None = None) -> Dense:
        """Return (num_own_cols, width) memory for X that `A @ X` reads without a copy; uninitialised."""
        return self.own_buffer("gather", width, np.dtype(dtype or self.dtype))

    def own_buffer(self, plan: str, width: int, dtype: np.dtype[Any]) -> Dense:
        """Return the memory that the exchange of `plan` (`gather` or `scatter`) starts from without a copy."""
        self.check_open()
        part = self._exchanges.plan(plan)
        if not part.stages or (self._chunks.given or 1) > 1:
            return np.empty((part.num_own, width), dtype=dtype)
        return self.exchange(plan, width, dtype).own_buffer()

    def update_values(self, data: Dense) -> None:
        """Replace the values of this rank's nonzeros; the structure stays.

        Args:
            data: (own nonzeros,) in the CSR order of the rows that the matrix was made of.

        Raises:
            InputError: on every rank, when some rank gave another number of values.

        Note: Collective over comm.
        """
        self.check_open()
        wrong = None
        if data.shape != (self._blocks.nnz,):
            wrong = InputError(f"update_values needs {self._blocks.nnz} values, not an array of shape {data.shape}")
        self.transport.agree(wrong)
        self._blocks.update(data.astype(self.dtype, copy=False))
        if self._on_device is not None:
            self._on_device.forget_values()

    def distribute(self, x: Dense | None, root: int = 0) -> Dense:
        """Send a whole X, in original numbering, from `root` to the ranks that own its rows.

        Args:
            x: (num_cols, k) or (num_cols,) on `root`, None elsewhere.
            root: the rank that has it.

        Note: Collective over comm.
        """
        self.check_open()
        return distribute(x, self.product.layouts.cols, self.transport, root)

    def collect(self, y: Dense, root: int = 0) -> Dense | None:
        """Return a whole Y, in original numbering, on `root`; None elsewhere.

        Args:
            y: (num_own_rows, k) or (num_own_rows,), this rank's rows.
            root: the rank that gets it.

        Note: Collective over comm.
        """
        self.check_open()
        return collect(y, self.product.layouts.rows, self.transport, root)

    @property
    def blocks(self) -> Blocks:
        """What this rank multiplies."""
        return self._blocks

    def exchange(self, plan: str, width: int, dtype: np.dtype[Any]) -> Exchange:
        """Return the exchange of `plan` (`gather` or `scatter`) for blocks of a width, made when first asked for.

        Note: Collective over comm.
        """
        self.check_open()
        return self._exchanges.get(plan, width, dtype)

    def as_linear_operator(self) -> LinearOperator:
        """Return an operator on whole vectors, the same on every rank, for scipy's solvers; see `linear_operator`."""
        from sparsecomm.apps.solvers import linear_operator  # scipy's solvers take long to load

        return linear_operator(self)

    def close(self) -> None:
        """Free communicators and buffers; a second call does nothing.

        Note: Collective over comm.
        """
        if self._closed:
            return
        self._closed = True
        self._exchanges.close()
        if self._on_device is not None:
            self._on_device.close()
        self._blocks.close()
        self.transport.close()

    def check_open(self) -> None:
        """Refuse to go on after `close`.

        Raises:
            RuntimeError: the matrix is closed.
        """
        if self._closed:
            raise RuntimeError("this DistMatrix is closed")

    @cached_property
    def _forward(self) -> Way:
        return Way("gather", "scatter", *self._blocks.all, self._blocks.any_via)

    @cached_property
    def _reverse(self) -> Way:
        own, in_, out, via = (block.transposed() for block in self._blocks.all)
        return Way("scatter", "gather", own, out, in_, via, self._blocks.any_via)

    def _multiply(self, x: Dense, way: Way) -> Dense:
        block = self._checked(x, way)
        if on_device(x):
            y: Dense = self._device_product().multiply(
                block, (way.gather, way.scatter), (way.own, way.in_, way.out, way.via)
            )
        else:
            y = self._host.multiply(block, way)
        return y[:, 0] if x.ndim == 1 else y

    def _checked(self, x: Dense, way: Way) -> Dense:
        """Return X as a block of columns.

        Raises:
            InputError: it does not have this rank's rows.
        """
        self.check_open()
        plan = self._exchanges.plan(way.gather)
        check_array(x)
        if x.ndim not in (1, 2) or x.shape[0] != plan.num_own:
            raise InputError(f"rank {plan.rank} owns {plan.num_own} rows of X, not an array of shape {x.shape}")
        return x[:, None] if x.ndim == 1 else x

    def _device_product(self) -> DeviceProduct:
        if self._on_device is None:
            from sparsecomm.apps.device_product import DeviceProduct  # most jobs have no GPU

            levels, any_via = self.topology.num_levels, self._blocks.any_via
            self._on_device = DeviceProduct(
                self.product, self.transport, levels, any_via, self._wire, *self._device_options
            )
        return self._on_device
