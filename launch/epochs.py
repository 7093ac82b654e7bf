"""What a training run says of itself: a line for every epoch while it runs, and its end."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from sparsecomm.topology import Topology
from sparsecomm.typing import IntGlobal

if TYPE_CHECKING:
    from sparsecomm.apps.torch.training import Epoch

_EVERY_S = 1.0


class EpochLines:
    """Shows the last epoch: on a terminal in one line that changes, else in a line every second.

    Args:
        topology: whose levels are named.
        total: epochs at most.
        enabled: whether anything is shown; only rank 0 of a job shows.
        stream: where to; standard error by default.
    """

    def __init__(self, topology: Topology, total: int, *, enabled: bool = True, stream: TextIO | None = None) -> None:
        self._names, self._total = topology.level_names, total
        self._enabled, self._stream = enabled, stream or sys.stderr
        self._live, self._next_s, self._last, self._shown = self._stream.isatty(), 0.0, "", 0

    def __enter__(self) -> EpochLines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._enabled and self._last:
            self._show(self._last)
        if self._live and self._shown:
            self._stream.write("\n")

    def __call__(self, epoch: Epoch, num_bytes: IntGlobal) -> None:
        """Take an epoch and the bytes sent in it by level."""
        if not self._enabled:
            return
        self._last = _line(epoch, self._total, self._names, num_bytes)
        if self._live or time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + _EVERY_S
            self._show(self._last)
            self._last = ""

    def _show(self, line: str) -> None:
        if self._live:
            self._stream.write("\r" + line.ljust(self._shown))
            self._shown = len(line)
        else:
            self._stream.write(f"{line}\n")
        self._stream.flush()


def _line(epoch: Epoch, total: int, names: list[str], num_bytes: IntGlobal) -> str:
    scores = ", ".join(f"{name} {100 * score:.1f} %" for name, score in epoch.scores.items())
    rates = num_bytes / max(epoch.seconds, 1e-9)
    moved = ", ".join(
        f"{name} {size / 1e6:.3f} MB at {rate / 1e6:,.0f} MB/s"
        for name, size, rate in zip(names, num_bytes, rates, strict=True)
    )
    left = f"at most {(total - epoch.number) * epoch.seconds:,.0f} s left"
    facts = f"loss {epoch.loss:.4f}, {scores}, {1e3 * epoch.seconds:.1f} ms"
    return f"epoch {epoch.number} of {total}: {facts}, {moved}, {left}"


def show_gnn(report: dict[str, Any]) -> None:
    """Print what a run came to."""
    data, settings, epochs = report["dataset"], report["settings"], report["epochs"]
    print(
        f"{data['name']}: {data['nodes']:,} nodes, {data['edges']:,} edges, {data['features']:,} features, "
        f"{data['classes']} classes"
    )
    print(
        f"{settings['model']} of {settings['layers']} layers on {report['ranks']} ranks of "
        f"{report['topology']['name']}, strategy {report['strategy']}, layers {', '.join(report['orders'])}"
    )
    if epochs:
        print(_moved(report))
    best = ", ".join(f"{name} {100 * score:.2f} %" for name, score in report["best"].items())
    print(f"{report['score']} at epoch {report['best_epoch']}, of the lowest validation loss: {best}")


def _moved(report: dict[str, Any]) -> str:
    last, times = report["epochs"][-1], sorted(epoch["seconds"] for epoch in report["epochs"])
    parts = [
        f"{level} {size / 1e6:.3f} MB moved and {report['bytes_saved'][level] / 1e6:.3f} MB saved"
        for level, size in last["bytes"].items()
    ]
    return f"{len(times)} epochs, median {1e3 * times[len(times) // 2]:.1f} ms; in each {'; '.join(parts)}"
