"""Make the table and the picture of docs/what_if.md again: `python docs/renew_what_if.py --matrix ego-twitter.npz`.

It needs matplotlib, which nothing else here does: `pip install matplotlib`. `--report FILE` takes what
`sparsecomm plan --what-if --json` printed before, and counts nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

DOCS: Final = Path(__file__).resolve().parent
PAGE: Final = DOCS / "what_if.md"
PICTURE: Final = DOCS / "what_if.svg"
NODES: Final = [2**power for power in range(13)] + [4608]
MACHINES: Final = "summit:{" + ",".join(map(str, NODES)) + "}"
# Colours of Okabe and Ito, which colour-blind people tell apart.
COLOURS: Final = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
    "#999999",
    "#F0E442",
    "#44AA99",
)


def main() -> None:
    """Renew the table between the marks of the page, and the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--matrix", default="ego-twitter.npz", help="a file or a generator (ego-twitter.npz)")
    parser.add_argument("--report", type=Path, metavar="FILE", help="what the command printed before, with --json")
    args = parser.parse_args()
    report = json.loads(args.report.read_text()) if args.report else count(args.matrix)
    PAGE.write_text(with_table(PAGE.read_text(), table(report)))
    draw(report)


def count(matrix: str) -> Any:
    """Run the command."""
    command = [sys.executable, "-m", "sparsecomm", "plan", matrix, "-t", MACHINES, "--what-if", "--json"]
    run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "120"})
    return json.loads(run.stdout)


def with_table(page: str, shown: str) -> str:
    """Put a table between its marks."""
    return re.sub(r"(<!-- table: begin -->\n).*?(<!-- table: end -->)", rf"\g<1>{shown}\g<2>", page, flags=re.DOTALL)


def table(report: Any) -> str:
    """Return one line of Markdown for each case."""
    lines = ["nodes", "GPUs", "best", "network rows", "predicted", "`direct`", "limited by", "speed-up"]
    rows = [lines, ["---"] * len(lines), *(cells(case) for case in report["cases"])]
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


def cells(case: Any) -> list[str]:
    best, limit = case["strategies"][case["chosen"]], case["limit"]
    share = best["predicted_parts_s"][limit] / sum(best["predicted_parts_s"].values())
    return [
        f"{case['topology']['nodes']:,}",
        f"{case['topology']['ranks']:,}",
        f"`{case['chosen']}`",
        f"{best['rows']['network']:,}",
        f"{1e6 * case['predicted_s']:,.0f} us",
        f"{1e6 * case['strategies']['direct']['predicted_s']:,.0f} us",
        f"{limit} {100 * share:.0f} %",
        f"{case['speedup']:.2f}",
    ]


def draw(report: Any) -> None:
    """Draw the time of every strategy, and what the time of the best is made of, over the nodes."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "sparsecomm"  # the same picture from the same figures
    import matplotlib.pyplot as plt

    cases = report["cases"]
    nodes = [case["topology"]["nodes"] for case in cases]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.2), layout="constrained")
    names = sorted({name for case in cases for name, entry in case["strategies"].items() if entry})
    for number, name in enumerate(names):
        known = [case for case in cases if case["strategies"][name]]
        left.plot(
            [case["topology"]["nodes"] for case in known],
            [1e3 * case["strategies"][name]["predicted_s"] for case in known],
            marker="os^vDPX*"[number % 8],
            markersize=4,
            linewidth=1,
            color=COLOURS[number % len(COLOURS)],
            linestyle="--" if number >= len(COLOURS) else "-",
            label=name,
        )
    left.set(xscale="log", yscale="log", xlabel="nodes of Summit", ylabel="predicted, ms", title="every strategy")
    left.legend(fontsize=7, ncols=2)
    best = [case["strategies"][case["chosen"]]["predicted_parts_s"] for case in cases]
    parts = [part for part in best[0] if any(one[part] > 0.01 * sum(one.values()) for one in best)]
    values = [[1e3 * one[part] for one in best] for part in parts]
    right.stackplot(nodes, values, labels=parts, colors=[*COLOURS[1:], COLOURS[0]])
    right.set(xscale="log", xlabel="nodes of Summit", ylabel="predicted, ms", title="parts of the best")
    right.legend(fontsize=7, loc="upper left")
    figure.savefig(PICTURE, metadata={"Date": None})


if __name__ == "__main__":
    main()
