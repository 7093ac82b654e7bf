"""The table of `sparsecomm calibrate`."""

from __future__ import annotations

from rich.table import Table

from sparsecomm.calibration import Calibration
from sparsecomm.launch.tables import make_console, seconds


def show_calibration(made: Calibration) -> None:
    """Print the measured figures of every level, and of copies and products."""
    table = Table(title=f"{made.host}, messages of {made.ranks:,} ranks at once", title_justify="left")
    for name in ("level", "latency", "one rank", "a group"):
        table.add_column(name, justify="left" if name == "level" else "right")
    for name, link in made.levels.items():
        rates = (f"{rate / 1e9:.3g} GB/s" for rate in (link.rank_Bps, link.group_Bps))
        table.add_row(name, seconds(link.latency_s), *rates)
    out = make_console()
    for name, by in made.gpu.items():
        for transport, link in by.items():
            rates = (f"{rate / 1e9:.3g} GB/s" for rate in (link.rank_Bps, link.group_Bps))
            table.add_row(f"{name}, GPUs by {transport}", seconds(link.latency_s), *rates)
    out.print(table)
    out.print(f"a rank alone copies {made.memory_Bps / 1e9:.3g} GB/s of scattered rows, reads and writes counted")
    dense = seconds(256 * made.byte_s)
    out.print(f"and multiplies in {seconds(made.nonzero_s)} a nonzero and {dense} for its 64 float32 of X,")
    row, dense = seconds(made.row_s), seconds(256 * made.row_byte_s)
    out.print(f"{row} a row and {dense} for its 64 float32 of Y")
    out.print(f"products take {made.crowding:.2f} times longer when all ranks multiply")
