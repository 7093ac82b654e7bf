"""What a machine was measured to do, as cost models use it: fitted from times, kept as JSON."""

from __future__ import annotations

import json
import logging
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from sparsecomm.cost import CostModel, Link
from sparsecomm.errors import InputError
from sparsecomm.kernels.ceilings import Ceilings
from sparsecomm.kernels.model import nonzero_s
from sparsecomm.kernels.reuse import Reuse
from sparsecomm.topology import Topology, check_number

FORMAT: Final = "sparsecomm.calibration/1"
_LOG: Final = logging.getLogger("sparsecomm")


class Point(NamedTuple):
    """One measured exchange: every active rank sends and receives the same.

    Args:
        lanes: active ranks of each group of the pair.
        messages: of each active rank.
        num_bytes: of each message.
        seconds: of the slowest rank.
    """

    lanes: int
    messages: int
    num_bytes: int
    seconds: float


class Multiplied(NamedTuple):
    """One measured local product.

    Args:
        nnz: nonzeros.
        num_rows: rows of Y.
        row_bytes: bytes of a row of X.
        seconds: of the slowest rank.
    """

    nnz: int
    num_rows: int
    row_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """Measured figures of one machine.

    Args:
        host: name of the first rank's host.
        ranks: how many measured together.
        levels: by name, what messages cost there.
        memory_Bps: bytes per second at which a rank alone copies scattered rows.
        nonzero_s: seconds of a local product of a rank alone for each nonzero.
        byte_s: the same for each nonzero and byte of a row of X.
        crowding: how many times longer a product takes when all ranks multiply.
        date: when it was measured, ISO 8601.
        row_s: seconds of a local product of a rank alone for each row of Y.
        row_byte_s: the same for each byte of Y.
        kernel: seconds of a nonzero by how far away its row of X is, in place of the means over one matrix; None where
            these were not measured.
        gpu: by name of a level, what rows on GPUs cost there by each transport that could be had.
    """

    host: str
    ranks: int
    levels: dict[str, Link]
    memory_Bps: float
    nonzero_s: float
    byte_s: float
    crowding: float
    date: str
    row_s: float = 0.0
    row_byte_s: float = 0.0
    kernel: Ceilings | None = None
    gpu: dict[str, dict[str, Link]] = field(default_factory=dict)

    def model(self, topology: Topology, depth: int = 1, reuse: Reuse | None = None) -> CostModel:
        """Return the model of a topology whose levels have the measured figures; others keep those of the topology.

        Args:
            topology: of the ranks.
            depth: see `CostModel`.
            reuse: of what one rank multiplies; its nonzeros then take what the memories they come from take.
        """
        links = tuple(self.levels.get(level.name, Link.of(level)) for level in topology.levels)
        per_row = (self.row_s, self.row_byte_s)
        product = partial(_product_s, (self.nonzero_s, self.byte_s), per_row)
        if self.kernel is not None and reuse is not None and reuse.nnz:
            product = partial(_modelled_s, reuse, self.kernel, per_row)
        on_gpus = tuple(self.gpu.get(level.name, {}) for level in topology.levels)
        return CostModel(topology, self.memory_Bps, links, product, depth, True, self.crowding, on_gpus)

    def warn_of_presets(self, topology: Topology) -> None:
        """Log which levels of a topology were not measured: a prediction then rests on other figures than it seems."""
        missing = [level.name for level in topology.levels if level.name not in self.levels]
        if missing:
            _LOG.warning(
                "the calibration of %s knows %s, not %s: predictions take the figures of topology %s there",
                self.host, ", ".join(self.levels) or "no level", ", ".join(missing), topology.name,
            )  # fmt: skip

    def save(self, path: Path) -> None:
        """Write the file beside and rename it.

        Raises:
            InputError: it cannot be written.
        """
        beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            beside.write_text(json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n")
            beside.replace(path)
        except OSError as err:
            raise InputError(f"{path} cannot be written: {err.strerror or err}; choose another place with -o") from err

    @staticmethod
    def load(path: Path) -> Calibration:
        """Read what `save` wrote.

        Raises:
            InputError: there is no such file, or it is no calibration.
        """
        try:
            data = json.loads(path.read_text())
        except FileNotFoundError:
            raise InputError(f"no calibration {path}; measure this machine with `sparsecomm calibrate`") from None
        except (OSError, ValueError, RecursionError) as err:
            raise InputError(f"calibration {path} cannot be read: {err}; measure again") from err
        if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
            raise InputError(f"{path} is not a calibration of format {FORMAT}; measure again")
        try:
            levels = {str(name): _link(name, link) for name, link in data.pop("levels").items()}
            kernel, gpu = data.pop("kernel", None), data.pop("gpu", {})
            on_gpus = {str(name): {by: _link(name, link) for by, link in links.items()} for name, links in gpu.items()}
            ceilings = Ceilings.of_json(kernel) if kernel else None
            made = Calibration(**data, levels=levels, kernel=ceilings, gpu=on_gpus)
        except (AttributeError, KeyError, TypeError, ValueError) as err:
            raise InputError(f"calibration {path} is incomplete: {err}; measure again") from err
        times = dict.fromkeys(("nonzero_s", "byte_s", "row_s", "row_byte_s"), 0.0)
        for name, least in ({"memory_Bps": 1.0, "crowding": 1.0} | times).items():
            check_number(f"calibration {path}", name, getattr(made, name), least)
        return made


def default_path() -> Path:
    """Return where the calibration of this host is kept: in the user's cache folder, by name of the host."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base, "sparsecomm", "calibrations", f"{platform.node() or 'host'}.json")


def fit_link(points: Sequence[Point]) -> Link:
    """Fit latency and rates to exchanges of one level.

    With one lane, T = latency + bytes / rate of a rank. With all lanes, T = latency * messages + bytes * lanes / rate
    of a group; the latency is taken from there, where all ranks are busy. Errors weigh by their ratio to the time.

    Args:
        points: with one lane and with more, of at least two sizes each; with one lane only where there are no more.

    Source: postal model by least squares on log-spaced sizes, as in the max-rate model of Gropp, Olson, Samfass 2016.
    """
    most = max(point.lanes for point in points)
    alone = [point for point in points if point.lanes == 1 and point.messages == 1]
    busy = [point for point in points if point.lanes == most]
    _, byte_s = _fit(alone)
    latency_s, busy_byte_s = _fit(busy)
    return Link(latency_s, 1 / byte_s, most / busy_byte_s)


def fit_product(points: Sequence[Multiplied]) -> tuple[float, float, float, float]:
    """Return the seconds of a product for each nonzero, nonzero and byte of a row of X, row of Y, and byte of Y.

    Args:
        points: of matrices with many nonzeros in a row and with few, or rows and nonzeros cannot be told apart.
    """
    counts = np.array([[point.nnz, point.num_rows] for point in points], dtype=np.float64)
    wide = counts * np.array([[point.row_bytes] for point in points])
    columns = np.stack([counts[:, 0], wide[:, 0], counts[:, 1], wide[:, 1]], axis=1)
    nonzero_s, byte_s, row_s, row_byte_s = _relative_fit(columns, np.array([point.seconds for point in points]))
    return nonzero_s, byte_s, row_s, row_byte_s


def _fit(points: Sequence[Point]) -> tuple[float, float]:
    """Return seconds for each message and for each byte."""
    columns = np.array([[point.messages, point.messages * point.num_bytes] for point in points], dtype=np.float64)
    first, second = _relative_fit(columns, np.array([point.seconds for point in points]))
    return first, max(second, 1e-15)  # a link that no size slows down has no rate


def _relative_fit(columns: np.ndarray[Any, Any], seconds: np.ndarray[Any, Any]) -> list[float]:
    from scipy.optimize import nnls

    scale = np.abs(columns).max(axis=0)
    found: list[float] = (nnls(columns / scale / seconds[:, None], np.ones(seconds.size))[0] / scale).tolist()
    return found


def _modelled_s(
    reuse: Reuse,
    kernel: Ceilings,
    per_row: tuple[float, float],
    nnz: int,
    num_rows: int,
    row_bytes: int,
    itemsize: int,
) -> float:
    row_s, row_byte_s = per_row
    nonzeros = nnz * nonzero_s(reuse, row_bytes, itemsize, kernel)
    return nonzeros + num_rows * (row_s + row_byte_s * row_bytes)


def _product_s(
    per_nonzero: tuple[float, float], per_row: tuple[float, float], nnz: int, num_rows: int, row_bytes: int, _: int
) -> float:
    (nonzero_s, byte_s), (row_s, row_byte_s) = per_nonzero, per_row
    return nnz * (nonzero_s + byte_s * row_bytes) + num_rows * (row_s + row_byte_s * row_bytes)


def _link(name: str, data: dict[str, float]) -> Link:
    link = Link(**data)
    for key, least in (("latency_s", 0.0), ("rank_Bps", 1.0), ("group_Bps", 1.0), ("direct_share", 1e-9)):
        check_number(f"level {name!r} of the calibration", key, getattr(link, key), least)
    return link
