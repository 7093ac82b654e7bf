"""What a report is about: a plan directory, or a recorded run."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from sparsecomm.apps.planning import Planned
from sparsecomm.apps.summary import Json
from sparsecomm.calibration import Calibration
from sparsecomm.cost import CostModel
from sparsecomm.errors import InputError
from sparsecomm.product_store import KIND as PLAN
from sparsecomm.product_store import load_product, load_product_header, load_report, load_topology, load_traffic
from sparsecomm.profile import COLUMNS, RECV, SEND
from sparsecomm.profile_store import KIND as PROFILE
from sparsecomm.profile_store import RankProfile, load_header, load_ranks, names_of
from sparsecomm.store import HEADER, Header, format_of
from sparsecomm.topology import Topology
from sparsecomm.traffic import PLANS, Traffic, traffic_of
from sparsecomm.typing import IntGlobal

REVERSE = "in reverse"
_PARTS = [f"{PLANS[0]} forwards", f"{PLANS[1]} {REVERSE}"]
_WIDTH, _DTYPE = 64, "float32"  # what a plan is shown for where it does not say


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One plan or one run.

    Args:
        path: of the directory.
        kind: `plan` or `run`.
        topology: of the ranks.
        report: what `sparsecomm plan --json` or `spmm --json` said; empty where nobody noted it.
        parts: names of the plans, or of the tracks of a run.
        traffic: messages of one product, or, where `times` is 0, of all that was recorded.
        times: products recorded, 1 for a plan; 0 where the tracks of a run ran unequally often.
        ranks: what each rank recorded.
        lost: ranks whose file cannot be had, and why.
        calibration: what the machine was measured to do, in place of what the topology says.
    """

    path: Path
    kind: str
    topology: Topology
    report: Json
    parts: list[str]
    traffic: Traffic
    times: int
    ranks: list[RankProfile] = field(default_factory=list)
    lost: dict[int, str] = field(default_factory=dict)
    calibration: Calibration | None = None

    @property
    def model(self) -> CostModel:
        return self.calibration.model(self.topology) if self.calibration else CostModel(self.topology)

    @property
    def width(self) -> int:
        return int(self.report.get("width", _WIDTH))

    @property
    def dtype(self) -> str:
        return str(self.report.get("dtype", _DTYPE))

    @property
    def row_bytes(self) -> int:
        return self.width * np.dtype(self.dtype).itemsize

    @property
    def in_turn(self) -> bool:
        """Whether the scatter waits for the gather, as far as is known."""
        known = (self.report.get("strategies") or {}).get(self.report.get("chosen")) or {}
        return int(known.get("phases", 1)) > 1

    def in_reverse(self, part: int) -> bool:
        """Say whether the stages of a part run from the last to the first."""
        return self.parts[part].endswith(REVERSE)

    @property
    def whole(self) -> bool:
        """Whether the file of every rank was found."""
        return not self.lost


def load_case(path: Path, calibration: Calibration | None = None) -> Case:
    """Read a plan directory or a profile directory, to be held against what was measured of the machine, if given.

    Raises:
        InputError: it is neither, or nothing of it can be read.
    """
    kind = format_of(path)
    if kind in (PLAN, PROFILE):
        return replace(_load_plan(path) if kind == PLAN else _load_run(path), calibration=calibration)
    if not path.exists():
        raise InputError(
            f"{path} does not exist; make it with `sparsecomm plan -o DIR` or `sparsecomm spmm --profile DIR`"
        )
    raise InputError(
        f"{path} is no plan or profile directory (its {HEADER} says {kind}); make one with `sparsecomm plan -o DIR` or "
        "`sparsecomm spmm --profile DIR`"
    )


def case_of(planned: Planned) -> Case:
    """Return the case of a plan that was just made, without writing it."""
    product, row_bytes = planned.product, planned.width * np.dtype(planned.dtype).itemsize
    name = Path(planned.source.info.name)
    return Case(name, "plan", product.topology, planned.report(), _PARTS, traffic_of(product, row_bytes), 1)


def _load_plan(path: Path) -> Case:
    header = load_product_header(path)
    topology, report = load_topology(path, header), load_report(path) or _known(header)
    case = Case(path, "plan", topology, report, _PARTS, _NOTHING, 1)
    if (path / "traffic.messages.npy").exists():
        traffic = load_traffic(path, header, case.row_bytes)
    else:
        traffic = traffic_of(load_product(path), case.row_bytes)
    return replace(case, traffic=traffic)


def _known(header: Header) -> Json:
    matrix = {name: header["matrix"][name] for name in ("name", "rows", "cols", "nnz")}
    return {"matrix": matrix, "chosen": header["strategy"]}


def _load_run(path: Path) -> Case:
    header = load_header(path)
    topology = Topology.from_dict(header["topology"])
    if topology.num_ranks != header["num_ranks"]:
        raise InputError(f"{path} is of {header['num_ranks']} ranks, its topology of {topology.num_ranks}; record anew")
    ranks, lost = load_ranks(path, header)
    if not ranks:
        why = ", ".join(sorted(set(lost.values())))
        raise InputError(f"{path}: not one of the files of {len(lost)} ranks can be had ({why}); record the run anew")
    tracks = max((rank.meta["tracks"] for rank in ranks), key=len)
    traffic = _check(path, _traffic_of(ranks, lost), topology, len(tracks))
    runs = {track["num_runs"] for rank in ranks for track in rank.meta["tracks"]}
    times = runs.pop() if len(runs) == 1 else 0
    if times:
        traffic = traffic.divided(times)
    return Case(path, "run", topology, header["report"], list(names_of(tracks)), traffic, times, ranks, lost)


def _traffic_of(ranks: list[RankProfile], lost: dict[int, str]) -> Traffic:
    """Join what every rank sent; what a lost rank sent is known from those that it came to."""
    tables = []
    for rank in ranks:
        side, peer = rank.messages[:, COLUMNS.index("side")], rank.messages[:, COLUMNS.index("peer")]
        for picked, mine in ((side == SEND, True), ((side == RECV) & np.isin(peer, list(lost)), False)):
            tables.append(_oriented(rank.messages[picked], rank.rank, sends=mine))
    return Traffic(*_with_final(np.concatenate(tables, axis=1), ranks))


def _with_final(sent: IntGlobal, ranks: list[RankProfile]) -> IntGlobal:
    """Take from the receivers how many rows of each message go no further."""
    sides = [rank.messages[rank.messages[:, COLUMNS.index("side")] == RECV] for rank in ranks]
    came = np.concatenate([_oriented(m, rank.rank, sends=False) for rank, m in zip(ranks, sides, strict=True)], axis=1)
    both = np.concatenate([sent, came], axis=1)
    key = np.zeros(both.shape[1], dtype=np.int64)
    for place in (0, 1, 3, 4):  # part, stage, src, dst
        key = key * (both[place].max(initial=0) + 1) + both[place]
    _, first, second = np.intersect1d(key[: sent.shape[1]], key[sent.shape[1] :], return_indices=True)
    sent[7, first] = came[7, second]
    return sent


def _oriented(messages: IntGlobal, rank: int, *, sends: bool) -> IntGlobal:
    part, _, stage, level, peer, rows, ends, count, num_bytes = messages[:, :9].T
    here, none = np.full_like(peer, rank), np.zeros_like(ends)
    src, dst, given, final = (here, peer, ends, none) if sends else (peer, here, none, ends)
    return np.stack([part, stage, level, src, dst, rows, given, final, count, num_bytes])


def _check(path: Path, traffic: Traffic, topology: Topology, num_tracks: int) -> Traffic:
    limits = {"part": num_tracks, "level": topology.num_levels, "src": topology.num_ranks, "dst": topology.num_ranks}
    for name, most in limits.items():
        values = getattr(traffic, name)
        if len(traffic) and not 0 <= values.min() <= values.max() < most:
            raise InputError(f"{path}: a file of a rank names {name} {values.max()} of {most}; record the run anew")
    return traffic


_NOTHING = Traffic(*np.empty((10, 0), dtype=np.int64))
