"""Plans kept under what they were made for: in memory, and in a folder that never grows beyond a bound."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from sparsecomm import __version__
from sparsecomm.errors import InputError
from sparsecomm.store import HEADER, Header, new_directory, write_header
from sparsecomm.topology import Topology

T = TypeVar("T")

KIND: Final = "sparsecomm.plan-cache"
VERSION: Final = 1
FOLDER: Final = "SPARSECOMM_CACHE"

_KEY: Final = re.compile("[0-9a-f]{32}")  # whatever else is in the folder is not ours
_MAX_BYTES: Final = 2 << 30
_MAX_KEPT: Final = 16  # entries in memory
_DAMAGED: Final = (ArithmeticError, InputError, LookupError, OSError, TypeError, ValueError)


class PlanCache:
    """Entries by key. Whatever cannot be read is a miss, and a folder that cannot be written is no reason to fail.

    Args:
        folder: where entries are kept; None keeps them in memory only.
        max_bytes: of all entries in the folder; the oldest go first, and one that takes half of it is not written.
    """

    def __init__(self, folder: Path | None, max_bytes: int = _MAX_BYTES) -> None:
        self.folder, self._max_bytes = folder, max_bytes
        self.hits = self.misses = 0
        self._kept: OrderedDict[str, Any] = OrderedDict()
        self._lock = threading.Lock()

    @staticmethod
    def of(environ: Mapping[str, str]) -> PlanCache | None:
        """Return the cache that the environment asks for.

        `SPARSECOMM_CACHE` names the folder; empty, there is no cache; without it plans are kept in the user's cache
        folder.
        """
        given = environ.get(FOLDER)
        if given is not None:
            return PlanCache(Path(given)) if given else None
        base = environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        return PlanCache(Path(base, "sparsecomm", "plans"))

    def get(self, key: str, read: Callable[[Path, Header], T]) -> T | None:
        """Return what was put under `key`, from memory or by `read(folder of the entry, its header)`."""
        found = self._find(key, read)
        with self._lock:
            self.hits, self.misses = self.hits + (found is not None), self.misses + (found is None)
        return found

    def take_back(self) -> None:
        """Count the last hit as a miss: what was found is of no use."""
        with self._lock:
            self.hits, self.misses = self.hits - 1, self.misses + 1

    def put(self, key: str, value: object, write: Callable[[Path], Header]) -> None:
        """Keep `value`; `write(folder)` fills the folder of its entry and returns the header."""
        self._keep(key, value)
        if self.folder is None:
            return
        try:
            shutil.rmtree(self.folder / key, ignore_errors=True)  # damaged, or it would have been found
            with new_directory(self.folder / key, KIND) as path:
                write_header(path, KIND, VERSION, write(path))
            self._forget_oldest(key)
        except (InputError, OSError):
            return

    def to_json(self) -> dict[str, int]:
        return {"hits": self.hits, "misses": self.misses}

    def _find(self, key: str, read: Callable[[Path, Header], T]) -> T | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return cast(T, self._kept[key])
        if self.folder is None:
            return None
        path = self.folder / key
        try:
            found = read(path, _read_header(path))
            os.utime(path)
        except _DAMAGED:
            return None
        self._keep(key, found)
        return found

    def _keep(self, key: str, value: object) -> None:
        with self._lock:
            self._kept[key] = value
            self._kept.move_to_end(key)
            while len(self._kept) > _MAX_KEPT:
                self._kept.popitem(last=False)

    def _forget_oldest(self, newest: str) -> None:
        """Remove entries, the oldest first, until the rest fits; the newest one too where it alone is too large."""
        assert self.folder is not None
        with self._lock:
            entries = (path for path in self.folder.iterdir() if _KEY.fullmatch(path.name))
            sizes = {path: _num_bytes(path) for path in entries}
            if sizes.get(self.folder / newest, 0) > self._max_bytes // 2:
                shutil.rmtree(self.folder / newest, ignore_errors=True)
                return
            total = sum(sizes.values())
            for path in sorted(sizes, key=_last_use):
                if total <= self._max_bytes:
                    return
                shutil.rmtree(path, ignore_errors=True)
                total -= sizes[path]


def plan_key(pattern: str, topology: Topology, *words: object) -> str:
    """Return the name of an entry: of a pattern, a topology whatever it is called, a strategy and more, and this code.

    Args:
        pattern: fingerprint of the nonzeros and of who owns them.
        topology: what was planned for.
        words: the strategy, and what else decides.
    """
    facts = [pattern, topology.to_dict() | {"name": ""}, [str(word) for word in words], _code()]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


@cache
def _code() -> list[str]:
    """Return the version, and sizes and times of the files that plan: who changes them must not meet old plans."""
    home = Path(__file__).parent
    files = sorted([*home.glob("*.py"), *(home / "collectives").glob("*.py")])
    stats = [path.stat() for path in files]
    stamp = [f"{path.name} {stat.st_size} {stat.st_mtime_ns}" for path, stat in zip(files, stats, strict=True)]
    return [__version__, hashlib.sha256("\n".join(stamp).encode()).hexdigest()]


def _read_header(path: Path) -> Header:
    header = json.loads((path / HEADER).read_text())
    if header["format"] != KIND or header["version"] != VERSION:
        raise ValueError(f"{path} has another format")
    return cast(Header, header)


def _num_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _last_use(path: Path) -> float:
    return path.stat().st_mtime
