"""A recorded run as a trace that Perfetto and chrome://tracing open: a process for each rank, arrows for messages."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from sparsecomm.apps.report.case import Case
from sparsecomm.apps.report.files import written
from sparsecomm.apps.report.spans import span_text
from sparsecomm.apps.report.transfers import Transfers
from sparsecomm.errors import InputError
from sparsecomm.profile import Kind

MAX_EVENTS: Final = 10**6
_PRODUCT, _COMMUNICATION, _ARRIVALS, _RUNS = 1, 2, 3, 10  # threads of a rank; one for the runs of each track
_THREADS: Final = {
    Kind.PRODUCT: _PRODUCT,
    Kind.LAND: _ARRIVALS,
    **dict.fromkeys((Kind.PACK, Kind.POST, Kind.WAIT, Kind.UNPACK, Kind.DRAIN), _COMMUNICATION),
}
_NAMES: Final = {_PRODUCT: "product", _COMMUNICATION: "communication", _ARRIVALS: "arrivals"}
Event = dict[str, Any]


def write_trace(path: Path, case: Case, transfers: Transfers, max_events: int = MAX_EVENTS) -> str:
    """Write a trace, compressed if the name ends with `.gz`, and return a note on what is not in it.

    Raises:
        InputError: the case is a plan, or `path` cannot be written.

    Source: Trace Event Format of Chromium; flows are matched by id, events sorted by time.
    """
    if case.kind != "run":
        raise InputError(
            f"{case.path} is a plan: only a recorded run has times; make one with `sparsecomm spmm --profile`"
        )
    since, note = _cut(case, transfers, max_events)
    events = [*_metadata(case), *sorted(_events(case, transfers, since), key=lambda one: one["ts"])]
    trace = {"traceEvents": events, "displayTimeUnit": "ms", "otherData": {"note": note, "name": case.path.name}}
    data = json.dumps(trace, separators=(",", ":")).encode()
    with written(path) as beside:
        beside.write_bytes(gzip.compress(data, 6, mtime=0) if path.suffix == ".gz" else data)
    return note


def _cut(case: Case, transfers: Transfers, max_events: int) -> tuple[int, str]:
    """Return the moment from which events are kept, so that they are not too many, and a note."""
    begins = np.concatenate([*(rank.spans[:, 4] for rank in case.ranks), transfers.begin, transfers.begin])
    lost = sum(rank.meta["num_spans"] - len(rank.spans) for rank in case.ranks)
    notes = [f"{lost:,} earlier spans were not kept while recording"] if lost else []
    since = int(begins.min(initial=np.iinfo(np.int64).max)) if begins.size else 0
    if begins.size > max_events:
        since = int(np.partition(begins, begins.size - max_events)[begins.size - max_events]) + 1
        notes.append(f"only the latest {(begins >= since).sum():,} of {begins.size:,} events are here")
    if case.lost:
        notes.append(f"the files of {len(case.lost)} ranks are missing")
    return since, "; ".join(notes)


def _metadata(case: Case) -> Iterator[Event]:
    for rank in case.ranks:
        node = int(case.topology.rank_to_node[rank.rank])
        about = {"name": f"rank {rank.rank} (node {node})"}
        yield {"ph": "M", "name": "process_name", "pid": rank.rank, "tid": 0, "args": about}
        yield {"ph": "M", "name": "process_sort_index", "pid": rank.rank, "tid": 0, "args": {"sort_index": rank.rank}}
        tracks = {_RUNS + number: f"runs of {name}" for number, name in enumerate(case.parts)}
        for thread, name in (_NAMES | tracks).items():
            yield {"ph": "M", "name": "thread_name", "pid": rank.rank, "tid": thread, "args": {"name": name}}


def _events(case: Case, transfers: Transfers, since: int) -> Iterator[Event]:
    origin = min((int(rank.spans[:, 4].min()) for rank in case.ranks if len(rank.spans)), default=0)
    for rank in case.ranks:
        for kind, track, index, run, begin, end in rank.spans[rank.spans[:, 4] >= since].tolist():
            name, args = span_text(case, rank, Kind(kind), track, index)
            yield {
                "ph": "X",
                "name": name,
                "cat": Kind(kind).name.lower(),
                "pid": rank.rank,
                "tid": _THREADS.get(Kind(kind), _RUNS + track),
                "ts": (begin - origin) / 1e3,
                "dur": (end - begin) / 1e3,
                "args": args | {"run": run},
            }
    pick = np.flatnonzero((transfers.begin >= since) & (transfers.end >= since))
    ends = (transfers.src, transfers.dst, transfers.begin, np.maximum(transfers.end, transfers.begin))
    for number, src, dst, begin, end in zip(pick.tolist(), *(one[pick].tolist() for one in ends), strict=True):
        same: Event = {"name": "message", "cat": "message", "id": number}
        yield same | {"ph": "s", "pid": src, "tid": _COMMUNICATION, "ts": (begin - origin) / 1e3}
        yield same | {"ph": "f", "bp": "e", "pid": dst, "tid": _ARRIVALS, "ts": (end - origin) / 1e3}
