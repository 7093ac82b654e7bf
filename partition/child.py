"""A process apart for foreign partitioners: one that crashes or hangs must not take the job with it.

A program that has started MPI must not fork, so in a job `Child.start` is called before MPI is (the command line
does) and the child waits for work on its standard input.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sparsecomm.errors import SparseCommError

Arrays = dict[str, npt.NDArray[Any]]


class Child:
    """A process that calls functions `(arrays) -> arrays` by name, one after the other."""

    _waiting: Child | None = None

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sparsecomm.partition.child"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    @classmethod
    def start(cls) -> None:
        """Start the child that the next `call` uses; needed only before MPI is started."""
        cls._waiting = cls._waiting or Child()

    @classmethod
    def stop(cls) -> None:
        """End a child that was started and not used."""
        if cls._waiting is not None:
            cls._waiting.close()
            cls._waiting = None

    @classmethod
    def take(cls) -> Child | None:
        """Return the waiting child or a new one; None where MPI runs and no child was started before it."""
        child, cls._waiting = cls._waiting, None
        if child is None and "mpi4py.MPI" not in sys.modules:
            child = Child()
        return child

    def call(self, function: str, arrays: Arrays, timeout_s: float) -> Arrays:
        """Run `module:function` on `arrays` and return its arrays.

        Raises:
            SparseCommError: it raised, crashed, or took longer than `timeout_s`.
        """
        with tempfile.TemporaryDirectory(prefix="sparsecomm-") as folder:
            np.savez(Path(folder, "in.npz"), allow_pickle=False, **arrays)
            reply = self._ask({"function": function, "folder": folder}, timeout_s)
            if reply != "done":
                raise SparseCommError(f"{function} failed: {reply}")
            with np.load(Path(folder, "out.npz"), allow_pickle=False) as out:
                return dict(out)

    def _ask(self, request: dict[str, str], timeout_s: float) -> str:
        assert self._process.stdin is not None  # both pipes were asked for in __init__
        assert self._process.stdout is not None
        late = threading.Event()

        def give_up() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(timeout_s, give_up)
        timer.start()
        try:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write(json.dumps(request).encode() + b"\n")
                self._process.stdin.flush()
            line = self._process.stdout.readline().decode()
        finally:
            timer.cancel()
        if late.is_set():
            return f"no answer within {timeout_s:g} s"
        return json.loads(line)["reply"] if line else f"the process ended with status {self._process.wait()}"

    def close(self) -> None:
        """End the process."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


def call_apart(function: str, arrays: Arrays, timeout_s: float = 3600.0) -> Arrays:
    """Run `module:function` on `arrays` in a process apart, or here where none can be started any more.

    Raises:
        SparseCommError: it failed, crashed or took longer than `timeout_s`.
    """
    child = Child.take()
    if child is None:
        return _resolve(function)(arrays)
    try:
        return child.call(function, arrays, timeout_s)
    finally:
        child.close()


def _resolve(function: str) -> Callable[[Arrays], Arrays]:
    module, _, name = function.partition(":")
    found: Callable[[Arrays], Arrays] = getattr(import_module(module), name)
    return found


def _serve() -> None:
    """Answer requests until standard input closes; whatever a library prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        folder = Path(request["folder"])
        try:
            with np.load(folder / "in.npz", allow_pickle=False) as arrays:
                np.savez(folder / "out.npz", allow_pickle=False, **_resolve(request["function"])(dict(arrays)))
            reply = "done"
        except Exception as err:  # the parent raises it again with its own context
            reply = f"{type(err).__name__}: {err}"
        answers.write(json.dumps({"reply": reply}) + "\n")
        answers.flush()


if __name__ == "__main__":
    _serve()
