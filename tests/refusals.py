"""Many commands in one job: `python -m tests.refusals COMMANDS FOLDER` runs on every rank of it.

COMMANDS is a JSON list of argument lists. Each rank leaves `FOLDER/RANK.json`: exit code, standard output, standard
error and the number of exchanges made, for every command in turn.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from mpi4py import MPI

from sparsecomm.collectives.exchange import Exchange
from tests.cli import sparsecomm


def _main(commands: Path, folder: Path) -> None:
    made = _count_exchanges()
    found = []
    for argv in json.loads(commands.read_text()):
        made.clear()
        ran = sparsecomm(*argv)
        found.append({"rc": ran.rc, "stdout": ran.stdout, "stderr": ran.stderr, "exchanges": len(made)})
    (folder / f"{MPI.COMM_WORLD.rank}.json").write_text(json.dumps(found))


def _count_exchanges() -> list[Exchange]:
    made: list[Exchange] = []
    make = Exchange.__init__

    def counted(self: Exchange, *args: Any, **options: Any) -> None:
        made.append(self)
        make(self, *args, **options)

    Exchange.__init__ = counted  # type: ignore[method-assign]
    return made


if __name__ == "__main__":
    _main(*map(Path, sys.argv[1:]))
