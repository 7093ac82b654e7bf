"""Partitioners that work in a process of their own: METIS, KaMinPar, Mt-KaHyPar, and twins over METIS."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from sparsecomm.errors import InputError, SparseCommError
from sparsecomm.layout import Layout, Layouts
from sparsecomm.partition.child import Arrays, call_apart
from sparsecomm.partition.levels import Cutter, split_levels
from sparsecomm.partition.request import Request
from sparsecomm.partition.structure import Structure
from sparsecomm.topology import Topology


@dataclass(frozen=True, slots=True)
class Library:
    """A partitioner that cuts with a foreign library.

    Args:
        method: its name.
        package: what must be installed.
        cutter: module and function in `sparsecomm.partition`.
        flat: whether it splits straight to ranks, knowing their distances.
    """

    method: str
    package: str
    cutter: str
    flat: bool = False

    def installed(self) -> bool:
        return find_spec(self.package) is not None

    def __call__(self, matrix: csr_array[Any], topology: Topology, request: Request) -> Layouts:
        """Split a matrix level by level in a process apart.

        Raises:
            InputError: the library is not installed.
            SparseCommError: it failed, or its answer is not a split.
        """
        if not self.installed():
            raise InputError(
                f"partition method {self.method!r} needs {self.package}; "
                "install it with: pip install 'sparsecomm[partition]'"
            )
        told = json.dumps(
            {
                "request": asdict(replace(request, goal="", flat=request.flat or self.flat)),
                "topology": topology.to_dict(),
                "cutter": self.cutter,
                "shape": matrix.shape,
            }
        )
        arrays: Arrays = {
            "indptr": matrix.indptr,
            "indices": matrix.indices,
            "told": np.frombuffer(told.encode(), dtype=np.uint8),
        }
        try:
            answer = call_apart(f"{__name__}:split_apart", arrays, request.timeout_s, request.child_memory_bytes)
        except InputError:
            raise
        except SparseCommError as err:
            raise SparseCommError(f"partition method {self.method!r} failed: {err}") from err
        return self._layouts(answer["part"], matrix.shape, topology)

    def _layouts(self, part: Any, shape: tuple[int, int], topology: Topology) -> Layouts:
        expected = shape[0] if shape[0] == shape[1] else sum(shape)
        if part.shape != (expected,):
            raise SparseCommError(f"{self.method} gave {part.size} ranks for {expected} rows and columns")
        rows = Layout.from_owners(part[: shape[0]], topology.num_ranks)
        square = shape[0] == shape[1]
        return Layouts(rows, rows if square else Layout.from_owners(part[shape[0] :], topology.num_ranks))


def split_apart(arrays: Arrays, folder: Path) -> Arrays:
    """Split a matrix; runs in the child process."""
    told = json.loads(arrays["told"].tobytes())
    fields = told["request"] | {"weights": tuple(told["request"]["weights"])}
    indptr, indices = arrays["indptr"], arrays["indices"]
    matrix = csr_array((np.ones(indices.size, np.int8), indices, indptr), shape=tuple(told["shape"]))
    module, _, name = told["cutter"].partition(":")
    cutter: Cutter = getattr(import_module(f"sparsecomm.partition.{module}"), name)
    topology = Topology.from_dict(told["topology"])
    return {"part": split_levels(Structure.of(matrix), topology, cutter, Request(**fields), folder)}


LIBRARIES = (
    Library("metis", "pymetis", "metis:cut_edges"),
    Library("metis-vol", "pymetis", "metis:cut_volume"),
    Library("twins", "pymetis", "twins:cut_groups"),
    Library("kaminpar", "kaminpar", "kaminpar:cut_edges"),
    Library("mtkahypar", "mtkahypar", "mtkahypar:cut_nets"),
    Library("mtkahypar-graph", "mtkahypar", "mtkahypar:cut_edges"),
    Library("mtkahypar-map", "mtkahypar", "mtkahypar:map_to_ranks", flat=True),
)
