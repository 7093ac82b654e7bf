"""What the child process of foreign libraries is made to do in tests."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

from sparsecomm.partition.child import Arrays


def double(arrays: Arrays, folder: Path) -> Arrays:
    return {name: 2 * array for name, array in arrays.items()}


def sleep(arrays: Arrays, folder: Path) -> Arrays:
    (folder / "half-written").write_text("x")
    (Path(arrays["where"].tobytes().decode()) / "started").touch()
    time.sleep(1000)
    return {}


def crash(arrays: Arrays, folder: Path) -> Arrays:
    os.abort()


def complain(arrays: Arrays, folder: Path) -> Arrays:
    raise ValueError("the graph is empty")


def swell(arrays: Arrays, folder: Path) -> Arrays:
    return {"big": np.ones(1 << 28)}
