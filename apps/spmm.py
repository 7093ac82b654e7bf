"""Application `spmm`: a distributed product, run, timed, counted and checked."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from sparsecomm.apps.chunks import NumChunks
from sparsecomm.apps.job import ReadyPlan, Share, bcast_layouts, bring, on_root, scatter_rows
from sparsecomm.apps.matrix import DistMatrix
from sparsecomm.apps.measured import measure
from sparsecomm.apps.pace import Pace
from sparsecomm.apps.picture import keep
from sparsecomm.apps.row_planner import RowPlanner
from sparsecomm.apps.source import Say, quiet
from sparsecomm.apps.summary import Json, plan_json
from sparsecomm.apps.transposed import TransposedMatrix
from sparsecomm.apps.trial import try_plans
from sparsecomm.arrays import as_device, use_gpu
from sparsecomm.calibration import Calibration
from sparsecomm.collectives.exchange import Exchange
from sparsecomm.collectives.profile import Profile
from sparsecomm.collectives.strategies import Candidate, allowed, choose
from sparsecomm.collectives.strategy import Strategy, get_strategy
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.collectives.transport.local import run_local
from sparsecomm.collectives.transport.open import open_transport
from sparsecomm.cost import CostModel
from sparsecomm.errors import InputError
from sparsecomm.io.csr import canonical
from sparsecomm.kernels.reuse import Reuse
from sparsecomm.matrix_store import load_matrix, renumber
from sparsecomm.partition.registry import Partitioner, partition_rows
from sparsecomm.plan_cache import PlanCache
from sparsecomm.product import RankProduct
from sparsecomm.topology import Topology

# Largest max |Y - ref| / (|A||X|) that counts as right, by bytes of a real number: many times what rounding gives.
TOLERANCE: Final = {4: 1e-5, 8: 1e-12}


@dataclass(frozen=True, slots=True)
class SpmmOptions:
    """What to multiply and how; see `sparsecomm spmm --help`."""

    matrix: str
    width: int = 64
    dtype: str = "float32"
    transpose: bool = False
    method: str = "block"
    strategy: str = "auto"
    plan: Path | None = None
    check: bool = False
    repeat: int = 1
    one_based: bool = False
    seed: int = 0
    calibration: Path | None = None
    plans: PlanCache | None = None
    guard: bool = False
    row_mode: bool = True
    profile: Path | None = None
    gpu: bool = False
    chunks: NumChunks = 1
    gpu_transport: str = "auto"
    gpu_graphs: bool = False


def run_spmm(options: SpmmOptions, topology: Topology, transport: Transport, say: Say = quiet) -> Json:
    """Bring a matrix into the job, plan, multiply `repeat` times, and return the report on every rank.

    Raises:
        InputError: on every rank, for bad input.
        ExchangeError: on every rank, when what moved is not what was planned.

    Note: Collective over comm.
    """
    dtype = np.dtype(options.dtype)
    plan = ReadyPlan.read(options.plan, topology, transport) if options.plan else None
    share = bring(
        options.matrix,
        topology,
        transport,
        method=options.method,
        dtype=dtype,
        one_based=options.one_based,
        plan=plan,
        say=say,
    )
    begin = time.perf_counter()
    cost = _cost(options.calibration, share, topology, transport)
    report, found, product = _plan(options, share, topology, transport, cost, plan, say)
    with DistMatrix(
        share.rows, product, topology, transport, chunks=options.chunks, cost=cost,
        device_transport=options.gpu_transport, graphs=options.gpu_graphs,
    ) as matrix:  # fmt: skip
        _prove(matrix, topology)
        report["seconds"] = time.perf_counter() - begin
        operator = matrix.T if options.transpose else matrix
        x, whole = _operand(options, operator, share, transport, dtype)
        say(f"multiplying {options.repeat + 1} times")
        profile = Profile.record(options.profile, transport, topology=topology) if options.profile else None
        level_bytes = report["strategies"][product.strategy]["bytes"]
        pace = Pace(say, options.repeat, level_bytes, report["partition"]["imbalance"]["nnz"])
        if options.gpu:
            node = topology.rank_to_node
            use_gpu(int(np.count_nonzero(node[: transport.rank] == node[transport.rank])))
        operand = as_device(x) if options.gpu else _in_place(operator, x)
        made = measure(matrix, operator, operand, options.repeat, transport, profile, pace)
        report |= {"ranks": transport.num_ranks, "gpu": options.gpu, "transpose": options.transpose}
        report["gpu_transports"] = _gpu_transports(matrix) if options.gpu else None
        report |= made.to_json(transport)
        row_bytes = options.width * dtype.itemsize
        report["executed"] = made.check_moved(found[product.strategy].volume, row_bytes, topology, transport)
        report |= _check(options, operator, share, whole, made.y, transport, say)
    report = {"schema": "sparsecomm.spmm/1", **report}
    if profile is not None:
        keep(profile, report, share.rows, share.layouts, transport)
    return report


def _plan(
    options: SpmmOptions,
    share: Share,
    topology: Topology,
    transport: Transport,
    cost: CostModel,
    plan: ReadyPlan | None,
    say: Say,
) -> tuple[Json, dict[str, Candidate], RankProduct]:
    """Count every strategy in the job, and make or take the product of the chosen one."""
    planner = RowPlanner(share.rows, share.layouts, topology, transport, options.plans, say)
    asked = plan.product.strategy if plan else options.strategy
    counts = planner.counts(asked)
    if plan and asked not in counts.volumes:  # one that cannot be counted in a job: what moves is held to its own plan
        counts = counts.with_volume(asked, plan.product.volume(topology, transport))
    found = counts.candidates(cost, options.width, np.dtype(options.dtype).itemsize)
    chosen, trial = choose(found, asked, row_mode=options.row_mode), None
    if options.guard and asked == "auto":
        dtype = np.dtype(options.dtype)

        def make(product: RankProduct) -> DistMatrix:
            return DistMatrix(share.rows, product, topology, transport)

        say("trying the two best plans")
        trial = try_plans(planner, allowed(found, options.row_mode), make, options.width, dtype)
        chosen = get_strategy(trial.kept)
    if plan is not None:
        say(f"taking {chosen.name} from {plan.path}")
    product = plan.product if plan else planner.product(chosen)
    partition = share.partition_json(topology, transport)
    report = plan_json(
        share.info,
        topology,
        partition,
        options.width,
        options.dtype,
        found,
        counts.late,
        chosen.name,
        counts.bounds,
    )
    calibration = str(options.calibration) if options.calibration else None
    cache = transport.bcast(options.plans.to_json() if options.plans else None)
    return (
        report | {"calibration": calibration, "cache": cache, "guard": trial.to_json() if trial else None},
        found,
        product,
    )


def _cost(path: Path | None, share: Share, topology: Topology, transport: Transport) -> CostModel:
    """Return the model of a topology, with what was measured where rank 0 finds the file, and of the rows of rank 0.

    Note: Collective over comm.
    """
    measured = transport.bcast(on_root(transport, lambda: Calibration.load(path) if path else None))
    if measured is None:
        return CostModel(topology)
    reuse = None
    if transport.rank == 0:
        measured.warn_of_presets(topology)
        reuse = Reuse.of_first(share.rows, share.rows.shape[0])
    return measured.model(topology, reuse=transport.bcast(reuse))


def _prove(matrix: DistMatrix, topology: Topology) -> None:
    """Push row ids through both plans by the real transport.

    Note: Collective over comm.
    """
    for plan in (matrix.product.gather, matrix.product.scatter):
        with Exchange(plan, matrix.transport, 1, np.int64, num_levels=topology.num_levels) as exchange:
            exchange.verify()


Operator = DistMatrix | TransposedMatrix


def _operand(
    options: SpmmOptions, operator: Operator, share: Share, transport: Transport, dtype: np.dtype[Any]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
    """Return this rank's rows of a random X, and all of X on rank 0 if the result is to be checked there."""
    if not options.check:
        layout = share.layouts.rows if options.transpose else share.layouts.cols
        rng = np.random.default_rng([options.seed, transport.rank])
        return _random(rng, (len(layout.own_rows(transport.rank)), options.width), dtype), None
    whole = None
    if transport.rank == 0:
        whole = _random(np.random.default_rng(options.seed), (operator.shape[1], options.width), dtype)
    return operator.distribute(whole), whole


def _random(rng: np.random.Generator, shape: tuple[int, int], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    x = rng.standard_normal(shape)
    return (x + 1j * rng.standard_normal(shape) if dtype.kind == "c" else x).astype(dtype)


def _in_place(operator: Operator, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return x in the memory that products read without a copy."""
    place = operator.empty(x.shape[1], x.dtype)
    place[...] = x
    return place


def _gpu_transports(matrix: DistMatrix) -> Json:
    """Return what each level of each plan goes by on GPUs, and why."""
    return {
        plan: {level: {"transport": choice.name, "why": choice.why} for level, choice in choices.items()}
        for plan, choices in matrix.device_choices.items()
    }


def _check(
    options: SpmmOptions,
    operator: Operator,
    share: Share,
    whole: npt.NDArray[Any] | None,
    y: npt.NDArray[Any],
    transport: Transport,
    say: Say,
) -> Json:
    """Compare with scipy on the whole matrix, on rank 0.

    Note: Collective over comm.
    """
    if not options.check:
        return {"max_error": None, "verified": None}
    say("checking against scipy")
    gathered = operator.collect(y)
    worst = transport.bcast(on_root(transport, lambda: _whole_error(options, share, whole, gathered)))
    assert worst is not None  # rank 0 computed it
    right = worst <= TOLERANCE[np.dtype(options.dtype).type(0).real.itemsize]
    return {"max_error": worst if np.isfinite(worst) else None, "verified": right}


def _whole_error(options: SpmmOptions, share: Share, x: Any, y: Any) -> float:
    """Compare X and Y in original numbering with the whole matrix, which rank 0 has or reads from its shards."""
    matrix = share.source.matrix if share.source else load_matrix(Path(options.matrix), share.layouts)
    rows, cols = share.layouts
    if options.transpose:
        matrix, rows, cols = matrix.T.tocsr(), cols, rows
    return max_error(matrix, x[cols.new_to_old()], y[rows.new_to_old()])


def max_error(matrix: csr_array[Any], x: npt.NDArray[Any], y: npt.NDArray[Any]) -> float:
    """Return max |Y - ref| / (|A||X|), elementwise, with ref computed by scipy in float64; inf where Y is not finite.

    Rounding errors grow with |A||X|, not with |Y|, which cancellation can make as small as it likes.

    Args:
        matrix: (m, n).
        x: (n, k).
        y: (m, k), the result in question.
    """
    wide = np.result_type(matrix.dtype, np.float64)
    exact, scale = matrix.astype(wide), abs(matrix).astype(np.float64)
    worst = 0.0
    for begin in range(0, x.shape[1], 16):  # a few columns at a time: float64 copies of X and Y need not fit at once
        part = slice(begin, begin + 16)
        error = np.abs(y[:, part] - exact @ x[:, part].astype(wide))
        bound = scale @ np.abs(x[:, part]).astype(np.float64)
        ratio = np.divide(error, bound, out=np.where(error == 0, 0.0, np.inf), where=bound > 0)
        worst = max(worst, float(np.nan_to_num(ratio, nan=np.inf, posinf=np.inf).max(initial=0.0)))
    return worst


def spmm(
    matrix: csr_array[Any] | None,
    x: npt.NDArray[Any] | None,
    topology: Topology | str,
    *,
    comm: object | None = None,
    method: str | Partitioner = "block",
    strategy: str | Strategy = "auto",
) -> npt.NDArray[Any] | None:
    """Return A @ X, computed by the ranks of a topology: the whole way in one call, for trying things out.

    Programs that multiply more than once keep a `DistMatrix`.

    Args:
        matrix: (m, n) with finite values, on rank 0; elsewhere None.
        x: (n, k) or (n,), on rank 0; elsewhere None.
        topology: or its name, for example `uniform:2x2`.
        comm: an mpi4py communicator or a transport; None runs all ranks as threads of this process.
        method: a partition method.
        strategy: a strategy.

    Returns:
        (m, k) or (m,) on rank 0, None elsewhere.

    Raises:
        InputError: on every rank, when the parts do not fit each other.

    Note: Collective over comm.

    Example:
        >>> from sparsecomm.io.matrix import read_matrix
        >>> A, X = read_matrix("grid2d:16"), np.ones((256, 3))
        >>> bool(np.allclose(spmm(A, X, "nodes:3,1"), A @ X))
        True
    """
    machine = Topology.of(topology)
    if comm is None:
        one = partial(_spmm, machine=machine, method=method, strategy=strategy)
        return run_local(machine.num_ranks, lambda t: one(*((matrix, x) if t.rank == 0 else (None, None)), t))[0]
    transport = open_transport(comm)
    result = _spmm(matrix, x, transport, machine, method, strategy)
    transport.close()
    return result


def _spmm(
    matrix: csr_array[Any] | None,
    x: npt.NDArray[Any] | None,
    transport: Transport,
    machine: Topology,
    method: str | Partitioner,
    strategy: str | Strategy,
) -> npt.NDArray[Any] | None:
    whole = on_root(transport, lambda: _whole(matrix))
    layouts = on_root(transport, lambda: partition_rows(_whole(matrix), machine, method))
    shared = bcast_layouts(layouts, transport)
    dtype = transport.bcast(whole.dtype.str if whole is not None else None)
    renumbered = renumber(whole, shared) if whole is not None else None
    rows = scatter_rows(renumbered, shared, np.dtype(dtype), transport)
    with DistMatrix.from_rows(rows, shared, machine, transport, strategy=strategy) as operator:
        return operator.collect(operator @ operator.distribute(x))


def _whole(matrix: csr_array[Any] | None) -> csr_array[Any]:
    if matrix is None:
        raise InputError("rank 0 must bring the matrix")
    return canonical(csr_array(matrix))
