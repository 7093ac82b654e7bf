"""Figures in a file: written whole each time, and read again by a run that goes on where the last one ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Json = dict[str, Any]


def read_results(path: Path | None, otherwise: Json) -> Json:
    """Return what an earlier run has written, or `otherwise` where there is nothing."""
    found: Json = json.loads(path.read_text()) if path and path.exists() else otherwise
    return found


def write_results(path: Path | None, results: Json) -> None:
    """Write the figures, where a file is named."""
    if path:
        path.write_text(json.dumps(results, indent=1) + "\n")


def words(text: str) -> list[str]:
    """Return what an option names by commas."""
    return [word for word in text.split(",") if word]
