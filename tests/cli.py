"""Run the command line inside this process, where a call costs milliseconds."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

from sparsecomm.launch.cli import main


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command returned and printed."""

    rc: int
    stdout: str
    stderr: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object that standard output is."""
        found = json.loads(self.stdout)
        assert isinstance(found, dict)
        return found


def sparsecomm(*argv: object) -> Ran:
    """Run `sparsecomm argv` in this process; ranks are threads of it."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            rc = main([str(word) for word in argv])
        except SystemExit as end:  # how argparse leaves
            rc = int(end.code or 0)
    return Ran(rc, out.getvalue(), err.getvalue())
