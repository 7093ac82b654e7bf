"""Make the pictures of docs/images again: `python docs/gallery.py [MATRIX]`.

A plan for eight nodes of Summit, one of a larger matrix for 512 of them, which takes minutes, and a run on a virtual
cluster of four nodes, which needs root; elsewhere the run is of ranks on this machine. Needs chromium.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

DOCS: Final = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

from tests.chromium import Browser  # noqa: E402

BIN: Final = Path(sys.executable).parent
LARGE: Final = "rmat:20"
NAME: Final = ["--name", f"gallery{os.getpid()}"]


def main() -> None:
    """Plan, run, write both pages and take their pictures."""
    matrix = sys.argv[1] if len(sys.argv) > 1 else "rmat:16"
    (DOCS / "images").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        sparsecomm("plan", matrix, "-t", "summit:8", "--html", folder / "plan.html")
        sparsecomm("plan", LARGE, "-t", "summit:512", "--html", folder / "large.html")
        run(matrix, folder / "run")
        sparsecomm("report", folder / "run", "--html", folder / "run.html")
        with Browser(1180, 860) as browser:
            shoot(browser, folder / "plan.html", "", "page")
            shoot(browser, folder / "plan.html", "ranks", "ranks")
            shoot(browser, folder / "plan.html", "topology", "topology")
            shoot(browser, folder / "large.html", "ranks", "large")
            shoot(browser, folder / "run.html", "timeline", "timeline")


def run(matrix: str, profile: Path) -> None:
    """Record products on a virtual cluster, or on this machine where none can be made."""
    options = ["--profile", profile, "--repeat", 5]
    if subprocess.run([BIN / "sparsecomm", "cluster", "up", *NAME, "--nodes", "4"]).returncode:
        sparsecomm("spmm", matrix, "-n", 8, "-t", "uniform:4x2", *options)
        return
    try:
        sparsecomm("cluster", "run", *NAME, "--", "sparsecomm", "spmm", matrix, *options)
    finally:
        sparsecomm("cluster", "down", *NAME)


def sparsecomm(*words: object) -> None:
    """Run the command."""
    subprocess.run([str(BIN / "sparsecomm"), *map(str, words)], check=True)


def shoot(browser: Browser, page: Path, tab: str, name: str) -> None:
    """Take the picture of a tab, or of the top of a page."""
    browser.open(page, f"#{tab}" if tab else "")
    browser.wait_for("Promise.all(drawn.values()).then(() => true)")
    browser.run(f"scrollTo(0, {'document.querySelector(`.tabs`).offsetTop - 12' if tab else 0})")
    browser.shoot(DOCS / "images" / f"{name}.png")


if __name__ == "__main__":
    main()
