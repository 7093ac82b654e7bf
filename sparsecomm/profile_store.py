"""Profile directories: a header and one file for each rank, each written beside and then renamed.

header.json        format, version, what ran; `run` names the recording
rank_000000.npz    messages (see `profile.COLUMNS`), spans, and a text in JSON: what else the rank says
"""

from __future__ import annotations

import json
import os
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from sparsecomm.errors import InputError
from sparsecomm.profile import COLUMNS, Recorder
from sparsecomm.store import Header, check_replaceable, read_header, write_header
from sparsecomm.typing import IntGlobal

KIND: Final = "sparsecomm.profile"
VERSION: Final = 1
READS: Final = (1,)
SPAN_COLUMNS: Final = ("kind", "track", "index", "run", "begin", "end")
_NEEDED: Final = {"run": str, "num_ranks": int, "topology": dict, "report": dict}
# What zipfile and numpy raise on a file that is none of theirs; RuntimeError is that of a flag they do not know.
_BROKEN: Final = (
    *(EOFError, KeyError, OSError, RuntimeError, SyntaxError, TypeError, ValueError),
    *(tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)
_META: Final = ("clock_offset_ns", "num_spans", "tracks", "products", "began_ns", "ended_ns")


@dataclass(frozen=True, slots=True, eq=False)
class RankProfile:
    """What one rank recorded.

    Args:
        rank: that did.
        meta: `host`, `clock_offset_ns`, `num_spans`, `capacity`, `tracks`, `products`, `began_ns`, `ended_ns`.
        messages: (num_messages, len(COLUMNS)) int64.
        spans: (num_kept, len(SPAN_COLUMNS)) int64, begin and end in nanoseconds of the clock of rank 0.
    """

    rank: int
    meta: dict[str, Any]
    messages: IntGlobal
    spans: IntGlobal


def start_directory(path: Path, run: str, num_ranks: int, topology: dict[str, Any]) -> None:
    """Make a profile directory without any ranks yet; what an earlier recording left there is removed.

    Raises:
        InputError: `path` cannot be written, or exists and is no profile directory.
    """
    check_replaceable(path, KIND)
    try:
        path.mkdir(parents=True, exist_ok=True)
        for old in path.glob("rank_*.npz"):
            old.unlink()
        save_header(path, {"run": run, "num_ranks": num_ranks, "topology": topology, "report": {}})
    except OSError as err:
        raise InputError(f"{path} cannot be written: {err.strerror or err}; choose another place") from err


def save_header(path: Path, header: Header) -> None:
    write_header(path, KIND, VERSION, header)


def load_header(path: Path) -> Header:
    """Read the header of a profile directory.

    Raises:
        InputError: it is none, or damaged.
    """
    header = read_header(path, KIND, READS, _NEEDED)
    if header["num_ranks"] < 1:
        raise InputError(f"{path} is of {header['num_ranks']} ranks; record it anew")
    return header


def save_rank(path: Path, run: str, recorder: Recorder, meta: dict[str, Any]) -> None:
    """Write the file of one rank; needs nobody else, so that a rank of a job that fails can still do it."""
    path.mkdir(parents=True, exist_ok=True)
    messages = np.concatenate([np.empty((0, len(COLUMNS)), np.int64), *(track.table() for track in recorder.tracks)])
    known = {
        "run": run,
        "rank": recorder.rank,
        "num_spans": recorder.num_spans,
        "capacity": recorder.capacity,
        "tracks": [track.to_json() for track in recorder.tracks],
        "products": {name: {"times": times, "ns": ns} for name, (times, ns) in recorder.products.items()},
    }
    text = np.frombuffer(json.dumps(known | meta).encode(), dtype=np.uint8)
    place = rank_file(path, recorder.rank)
    beside = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            np.savez_compressed(file, messages=messages, spans=recorder.spans, meta=text)
        beside.replace(place)
    finally:
        beside.unlink(missing_ok=True)


def rank_file(path: Path, rank: int) -> Path:
    return path / f"rank_{rank:06d}.npz"


def load_ranks(path: Path, header: Header) -> tuple[list[RankProfile], dict[int, str]]:
    """Return what all ranks recorded, and why what some of them did cannot be had."""
    found, lost = [], {}
    for rank in range(header["num_ranks"]):
        try:
            found.append(_load_rank(rank_file(path, rank), rank, header["run"]))
        except FileNotFoundError:
            lost[rank] = "missing"
        except _Foreign as err:
            lost[rank] = str(err)
        except _BROKEN as err:
            lost[rank] = f"damaged ({err})"
    return found, lost


class _Foreign(Exception):
    """A file of another recording or of another rank."""


def _load_rank(file: Path, rank: int, run: str) -> RankProfile:
    with np.load(file, allow_pickle=False) as arrays:
        messages, spans, text = arrays["messages"], arrays["spans"], arrays["meta"]
    meta = json.loads(text.tobytes())
    if meta["run"] != run or meta["rank"] != rank:
        raise _Foreign(f"of another recording (run {meta['run']}, rank {meta['rank']})")
    missing = [name for name in _META if name not in meta]
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}")
    for array, columns in ((messages, COLUMNS), (spans, SPAN_COLUMNS)):
        if array.dtype != np.int64 or array.ndim != 2 or array.shape[1] != len(columns):
            raise ValueError(f"{array.dtype} of shape {array.shape} instead of int64 with {len(columns)} columns")
    spans = spans.copy()
    spans[:, 4:] -= int(meta["clock_offset_ns"])
    return RankProfile(rank, meta, messages, spans)


def column(table: IntGlobal, name: str) -> npt.NDArray[np.int64]:
    """Return a column of a table of messages by its name."""
    return table[:, COLUMNS.index(name)]


def names_of(tracks: list[dict[str, Any]]) -> Iterator[str]:
    """Yield what people call each track."""
    for number, track in enumerate(tracks):
        yield f"{track['name'] or f'exchange {number}'} {track['direction']}".strip()
