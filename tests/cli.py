"""Run the command line inside this process, where a call costs milliseconds."""

from __future__ import annotations

import io
import json
import re
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any
from unittest import mock

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
    with redirect_stdout(out), redirect_stderr(err), mock.patch("sparsecomm.launch.progress.QUIET_S", 1e6):
        try:
            rc = main([str(word) for word in argv])
        except SystemExit as end:  # how argparse leaves
            rc = int(end.code or 0)
    return Ran(rc, out.getvalue(), err.getvalue())


def without_progress(stderr: str) -> str:
    """Leave out the lines that long work prints, and that a busy machine makes of short work."""
    return re.sub(r"^sparsecomm: (?!error|interrupted).*\n", "", stderr, flags=re.MULTILINE)
