"""Where a training run stands, in one `.npz`: plain arrays and a JSON header, written beside and then renamed."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from sparsecomm.errors import InputError
from sparsecomm.hashing import hash_table
from sparsecomm.layout import Layout

State = dict[str, npt.NDArray[Any]]
Header = dict[str, Any]
FORMAT: Final = "sparsecomm.gnn_checkpoint"
VERSION: Final = 1
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    OverflowError,
    ValueError,
    SyntaxError,
    TypeError,
    KeyError,
)


def partition_id(layout: Layout) -> str:
    """Return 16 hexadecimal digits that differ where a node has another owner or place."""
    both = hash_table([layout.offsets]) + 3 * hash_table([layout.to_all()])
    return f"{both % 2**64:016x}"


def save_checkpoint(path: Path, state: State, header: Header) -> None:
    """Write a checkpoint; a reader finds the old one or the new one, never a part.

    Args:
        path: the file.
        state: arrays.
        header: what a run must have in common with this one to go on from it.

    Raises:
        InputError: the file cannot be written.
    """
    text = json.dumps({"format": FORMAT, "version": VERSION, **header})
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as stream:
            np.savez(stream, header=np.frombuffer(text.encode(), dtype=np.uint8), **state)  # type: ignore[arg-type]
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(path)
    except OSError as err:
        raise InputError(f"{path} cannot be written: {err.strerror or err}; choose another place") from err
    finally:
        beside.unlink(missing_ok=True)


def load_checkpoint(path: Path, header: Header) -> State:
    """Read a checkpoint for a run that `header` describes.

    Raises:
        InputError: there is none, it is damaged, or it is of another run: another data set, model or partition.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            state = {name: archive[name] for name in archive.files}
        found = json.loads(state.pop("header").tobytes().decode())
    except FileNotFoundError:
        raise InputError(f"{path}: no such checkpoint; leave --resume out to begin anew") from None
    except _BROKEN as err:
        raise InputError(f"{path} is not a sound checkpoint ({err}); leave --resume out to begin anew") from err
    _check(path, found, {"format": FORMAT, "version": VERSION, **header})
    return state


def _check(path: Path, found: Any, wanted: Mapping[str, Any]) -> None:
    if not isinstance(found, dict):
        raise InputError(f"{path} is not a checkpoint of a training run; leave --resume out to begin anew")
    for name, value in wanted.items():
        if found.get(name) != value:
            raise InputError(
                f"checkpoint {path} was made with {name} {found.get(name)}, not {value}; "
                f"run with the same {name} as before, or leave --resume out to begin anew"
            )
