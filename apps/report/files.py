"""Writing what a report is exported to: beside, then renamed."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from sparsecomm.apps.report.case import Case
from sparsecomm.apps.report.maps import node_map
from sparsecomm.apps.summary import Json
from sparsecomm.errors import InputError

_DENSE: Final = 4096  # ranks up to which a matrix of them is written


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """Give a file to write that becomes `path` at the end, or vanishes if the writing fails.

    Raises:
        InputError: `path` cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield beside
        beside.replace(path)
    except OSError as err:
        raise InputError(f"{path} cannot be written: {err.strerror or err}; choose another place") from err
    finally:
        beside.unlink(missing_ok=True)


def write_csv(path: Path, case: Case) -> None:
    """Write one line for each message: plan, stage, level, src, dst, rows, times sent, bytes in all."""
    traffic, names = case.traffic, case.topology.level_names
    columns: list[list[Any]] = [
        [case.parts[part] for part in traffic.part.tolist()],
        traffic.stage.tolist(),
        [names[level] for level in traffic.level.tolist()],
        *(getattr(traffic, name).tolist() for name in ("src", "dst", "rows", "count", "num_bytes")),
    ]
    with written(path) as beside, beside.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["part", "stage", "level", "src", "dst", "rows", "count", "bytes"])
        lines.writerows(zip(*columns, strict=True))


def write_npz(path: Path, case: Case) -> None:
    """Write the messages as columns, and the matrices rank x rank (of up to 4096 ranks) and node x node in bytes."""
    traffic, num_ranks = case.traffic, case.topology.num_ranks
    arrays: dict[str, Any] = {name: getattr(traffic, name) for name in traffic.__slots__}
    arrays["rank_to_node"] = case.topology.rank_to_node
    if num_ranks <= _DENSE:
        cells = np.bincount(traffic.src * num_ranks + traffic.dst, traffic.num_bytes, num_ranks**2)
        arrays["rank_bytes"] = cells.astype(np.int64).reshape(num_ranks, num_ranks)
    nodes = node_map(case)
    arrays["node_bytes" if nodes.size == 1 else f"node_bytes_of_{nodes.size}"] = nodes.cells
    with written(path) as beside, beside.open("wb") as file:
        np.savez_compressed(file, **arrays)


def write_prometheus(path: Path, report: Json) -> None:
    """Write the levels and times of a report in the text format of Prometheus, for its textfile collector."""
    lines = []
    for name, text in (("rows", "Rows moved"), ("bytes", "Bytes moved"), ("messages", "Messages sent")):
        lines += [f"# HELP sparsecomm_{name} {text} by one product.", f"# TYPE sparsecomm_{name} gauge"]
        for level, entry in report["levels"].items():
            lines.append(f"sparsecomm_{name}{{{_labels(report, level=level)}}} {entry[name]}")
    for name, text in (("measured", "Median of the"), ("predicted", "Predicted")):
        value = report["time"][f"{name}_s"]
        if value is not None:
            lines += [f"# HELP sparsecomm_{name}_seconds {text} time of one product."]
            lines += [
                f"# TYPE sparsecomm_{name}_seconds gauge",
                f"sparsecomm_{name}_seconds{{{_labels(report)}}} {value}",
            ]
    with written(path) as beside:
        beside.write_text("\n".join(lines) + "\n")


def _labels(report: Json, **more: str) -> str:
    matrix = (report["matrix"] or {}).get("name", "")
    known = {"name": report["name"], "matrix": matrix, "topology": report["topology"]["name"], **more}
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in known.items())


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
