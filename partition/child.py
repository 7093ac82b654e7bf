"""A process apart for foreign partitioners: one that crashes or hangs must not take the job with it.

A program that has started MPI must not fork, so in a job `Child.start` is called before MPI is (the command line
does) and the child waits for work on its standard input.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sparsecomm.errors import SparseCommError

Arrays = dict[str, npt.NDArray[Any]]


class Child:
    """A process that calls functions `(arrays, folder) -> arrays` by name, one after the other."""

    _waiting: Child | None = None

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sparsecomm.partition.child"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @classmethod
    def start(cls) -> None:
        """Start the child that the next call uses; needed only before MPI is started."""
        cls._waiting = cls._waiting or Child()

    @classmethod
    def stop(cls) -> None:
        """End a child that was started and not used."""
        if cls._waiting is not None:
            cls._waiting.close()
            cls._waiting = None

    @classmethod
    @contextlib.contextmanager
    def kept(cls) -> Iterator[None]:
        """Let all calls inside use one child, so that libraries are loaded once."""
        started = cls._waiting is None and "mpi4py.MPI" not in sys.modules
        if started:
            cls.start()
        try:
            yield
        finally:
            if started:
                cls.stop()

    @classmethod
    @contextlib.contextmanager
    def borrow(cls) -> Iterator[Child | None]:
        """Give the waiting child or a new one; None where MPI runs and there is none.

        A waiting child waits again afterwards, if it still lives.
        """
        child, kept = cls._waiting, cls._waiting is not None
        if child is None and "mpi4py.MPI" not in sys.modules:
            child = Child()
        try:
            yield child
        finally:
            if child is not None and (not kept or child.ended()):
                child.close()
                cls._waiting = None

    def call(self, function: str, arrays: Arrays, timeout_s: float, memory_bytes: int = 0) -> Arrays:
        """Run `module:function` on `arrays` and return its arrays.

        Args:
            function: where it is.
            arrays: are written to files that the child maps.
            timeout_s: after which the child is killed.
            memory_bytes: that the child may allocate; 0 for nine tenths of the machine's memory.

        Raises:
            SparseCommError: it raised, crashed, took longer than `timeout_s` or more than `memory_bytes`.
        """
        with tempfile.TemporaryDirectory(prefix="sparsecomm-") as folder:
            _write(Path(folder, "in"), arrays)
            limit = memory_bytes or _total() * 9 // 10
            reply = self._ask({"function": function, "folder": folder, "memory": limit}, timeout_s)
            if reply != "done":
                raise SparseCommError(reply)
            return {name: np.array(array) for name, array in _read(Path(folder, "out")).items()}

    def _ask(self, request: dict[str, Any], timeout_s: float) -> str:
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
            return f"it gave no answer within {timeout_s:g} s and was ended; allow more time or try another method"
        if line:
            return str(json.loads(line)["reply"])
        return f"its process ended with status {self._process.wait()}; try another method"

    def ended(self) -> bool:
        """Say whether the process is gone."""
        return self._process.poll() is not None

    def close(self) -> None:
        """End the process."""
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


def call_apart(function: str, arrays: Arrays, timeout_s: float = 3600.0, memory_bytes: int = 0) -> Arrays:
    """Run `module:function` on `arrays` in a process apart, or here where none can be started any more.

    Raises:
        SparseCommError: it failed, crashed, or took more time or memory than allowed.
    """
    with Child.borrow() as child:
        if child is not None:
            return child.call(function, arrays, timeout_s, memory_bytes)
        with tempfile.TemporaryDirectory(prefix="sparsecomm-") as folder:
            return _resolve(function)(arrays, Path(folder))


def _total() -> int:
    """Return the memory of the machine: what is free would differ from run to run, and so would what succeeds."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _write(folder: Path, arrays: Arrays) -> None:
    folder.mkdir()
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)


def _read(folder: Path) -> Arrays:
    """Map the arrays of a folder; copies on write, and one without entries cannot be mapped."""
    files = sorted(folder.glob("*.npy"))
    empty = {file: np.load(file, allow_pickle=False).size == 0 for file in files if file.stat().st_size < 256}
    return {file.stem: np.load(file, mmap_mode=None if empty.get(file) else "c") for file in files}


def _resolve(function: str) -> Callable[[Arrays, Path], Arrays]:
    module, _, name = function.partition(":")
    found: Callable[[Arrays, Path], Arrays] = getattr(import_module(module), name)
    return found


def _serve() -> None:
    """Answer requests until standard input closes; whatever a library prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    for line in sys.stdin:
        request = json.loads(line)
        folder = Path(request["folder"])
        resource.setrlimit(resource.RLIMIT_DATA, (request["memory"], hard))
        try:
            _write(folder / "out", _resolve(request["function"])(_read(folder / "in"), folder))
            reply = "done"
        except MemoryError:
            reply = f"it needs more than {request['memory']:,} bytes of memory; allow more or try another method"
        except Exception as err:  # the parent raises it again with its own context
            reply = f"{type(err).__name__}: {err}"
        answers.write(json.dumps({"reply": reply}) + "\n")
        answers.flush()


if __name__ == "__main__":
    _serve()
