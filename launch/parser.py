"""The parser of command lines: what is wrong is one line, and where to look is in it."""

from __future__ import annotations

import argparse
import os
from typing import Any, NoReturn

from sparsecomm.launch.world import env_rank


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line; argparse prints the whole usage before them."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuse unknown arguments here: argparse leaves those of a command to the parser above it."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, in a job on rank 0 only, and leave with exit code 2."""
        says = f"sparsecomm: error: {message}; see `{self.prog} --help`\n"
        self.exit(2, says if env_rank(os.environ) in (None, 0) else None)
