"""Every reader with inputs to break, and what must hold whether it reads or refuses."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import scipy.sparse as sp

from sparsecomm.errors import InputError
from sparsecomm.io import read_matrix
from sparsecomm.topology import Topology
from tests.fuzz.directories import DIRECTORIES
from tests.fuzz.mutate import TOKENS, garbage, mutated, unzipped_size, with_changed_member, zipped
from tests.fuzz.target import Target, check_matrix


def _refused_by_name(spec: str, *, one_based: bool = False) -> None:
    try:
        matrix = read_matrix(spec, one_based=one_based)
    except InputError as err:
        assert str(err).startswith(spec)  # noqa: PT017 - both outcomes are fine, this one has a form
        raise
    check_matrix(matrix)


def _npz(kind: str, compressed: bool, size: int = 6) -> bytes:
    out = io.BytesIO()
    matrix = sp.random_array((size, size - 1), density=min(0.4, 20 / size), rng=np.random.default_rng(1), format=kind)
    sp.save_npz(out, matrix, compressed=compressed)
    return out.getvalue()


_MTX = b"%%MatrixMarket matrix "
VALID: dict[str, list[bytes]] = {
    ".mtx": [
        _MTX + b"coordinate real general\n% c\n3 3 3\n1 1 1.5\n2 3 -2e3\n3 1 0\n",
        _MTX + b"coordinate complex hermitian\n3 3 2\n1 1 1 0\n3 1 4 5\n",
        _MTX + b"coordinate pattern symmetric\n3 3 2\n1 1\n3 1\n",
        _MTX + b"coordinate integer skew-symmetric\n3 3 2\n2 1 4\n3 1 7\n",
        _MTX + b"array real general\n2 2\n1\n2\n3.5\n4\n",
        _MTX + b"array real symmetric\n2 2\n1\n2\n3.5\n",
        _MTX + b"array complex general\n2 1\n1 2\n3 4\n",
        _MTX + b"array integer skew-symmetric\n3 3\n1\n2\n3\n",
        _MTX + b"coordinate integer general\n%%GraphBLAS type int32\n4 3 2\n4 3 9\n1 2 8\n",
    ],
    ".graph": [b"3 2\n2\n1 3\n2\n", b"% c\n3 2 011 2\n4 4 2 7\n1 1 1 7 3 8\n9 9 2 8\n", b"3 1 100\n1\n1 3\n1 2\n"],
    ".txt": [b"# c\n0 1\n2 1\n", b"0 1 2.5\n1 1 -3\n", b"% c\n1\t2\n3\t2\n\n"],
    ".npz": [_npz(kind, compressed) for kind in ("csr", "csc", "coo") for compressed in (True, False)],
}
# Large enough for an allocation to be compared with.
LARGE: dict[str, bytes] = {
    ".mtx": _MTX
    + b"coordinate real general\n2000 2000 9000\n"
    + b"".join(b"%d %d %d.5\n" % (i % 2000 + 1, i * 7 % 2000 + 1, i) for i in range(9000)),
    ".graph": b"20000 20000\n"
    + b"".join(b"%d %d\n" % ((v - 1) % 20000 + 1, (v + 1) % 20000 + 1) for v in range(20000)),
    ".txt": b"".join(b"%d %d\n" % (i, i * 7 % 9000) for i in range(9000)),
    ".npz": _npz("csr", False, 3000),
}
_HEADS: dict[str, tuple[bytes, ...]] = {
    ".mtx": tuple(
        _MTX + b"%s %s %s\n" % (layout, field, symmetry) + size
        for layout in (b"coordinate", b"array", b"vector")
        for field in (b"real", b"complex", b"pattern", b"integer", b"unsigned-integer", b"x")
        for symmetry in (b"general", b"symmetric", b"hermitian", b"skew-symmetric", b"x")
        for size in (
            b"",
            b"2 2\n",
            b"3 3 2\n",
            b"4095 4095 3\n",
            b"5000 5000 1\n",
            b"1 9223372036854775807 1\n",
            b"0 0 0\n",
        )
    ),
    ".graph": (b"", b"3 2\n", b"3 2 1\n", b"4 3 011 2\n", b"4000 3\n", b"2 1 100\n", b"1 0\n", b"2 1 10 99999999\n"),
    ".txt": (b"", b"# c\n", b"0 1\n", b"0 1 2\n", b"%\n1 2 3 4\n"),
}


def _text(suffix: str) -> Callable[[Random], bytes]:
    def make(rng: Random) -> bytes:
        kind = rng.random()
        if kind < 0.01:
            return mutated(rng, LARGE[suffix])
        return mutated(rng, rng.choice(VALID[suffix])) if kind < 0.75 else garbage(rng, _HEADS[suffix])

    return make


def _make_npz(rng: Random) -> bytes:
    kind = rng.random()
    whole = LARGE[".npz"] if kind < 0.01 else rng.choice(VALID[".npz"])
    if kind < 0.6:
        return with_changed_member(rng, whole)
    return mutated(rng, whole) if kind < 0.95 else garbage(rng, (b"PK\x03\x04", b"PK\x05\x06", b"\x93NUMPY"))


def _file_target(suffix: str, make: Callable[[Random], bytes]) -> Target:
    def write(rng: Random, folder: Path) -> int:
        data = make(rng)
        (folder / ("fuzz" + suffix)).write_bytes(data)
        return len(data)

    def read(folder: Path) -> None:
        path = folder / ("fuzz" + suffix)
        _refused_by_name(str(path), one_based=path.stat().st_size % 2 == 1)

    return Target(suffix.removeprefix("."), write, read)


def _zipped_target(suffix: str) -> Target:
    """Break the text inside a sound gzip file or, less often, the gzip file."""
    make = _text(suffix)

    def write(rng: Random, folder: Path) -> int:
        data = zipped(make(rng))
        if rng.random() < 0.2:
            data = mutated(rng, data)
        (folder / f"fuzz{suffix}.gz").write_bytes(data)
        return max(len(data), unzipped_size(data))

    return Target(f"{suffix[1:]}.gz", write, lambda folder: _refused_by_name(str(folder / f"fuzz{suffix}.gz")))


_SPECS = (
    b"rmat:4:4:1",
    b"rmat:3",
    b"er:30:2:5",
    b"grid2d:4:3",
    b"grid2d:5",
    b"grid3d:3",
    b"grid3d27:3",
    b"radixnet:64:1",
)
_TREES = tuple(b"uniform:2x3 nodes:3,1,2 summit:2 frontier:1 perlmutter:3 dgx-h100:2 dgx-1:1".split())


def _write_spec(specs: tuple[bytes, ...]) -> Callable[[Random, Path], int]:
    def write(rng: Random, folder: Path) -> int:
        kind, spec = rng.random(), rng.choice(specs)
        if kind < 0.4:
            spec = mutated(rng, spec)
        else:
            name = spec.partition(b":")[0]
            spec = (
                name
                + b":"
                + rng.choice(b": x ,".split() or [b":"]).join(rng.choice(TOKENS) for _ in range(rng.randrange(4)))
            )
        text = spec.decode("utf-8", "surrogateescape")
        (folder / "spec").write_bytes(text.encode("utf-8", "surrogateescape"))
        return len(spec)

    return write


def _spec(folder: Path) -> str:
    return (folder / "spec").read_bytes().decode("utf-8", "surrogateescape")


def _read_generator(folder: Path) -> None:
    _refused_by_name(_spec(folder))


def _check_topology(topology: Topology) -> None:
    again = Topology.from_dict(topology.to_dict())
    assert np.array_equal(again.groups, topology.groups)
    ranks = np.arange(topology.num_ranks)
    assert ((topology.level_of(ranks, ranks[::-1]) >= 0) & (topology.level_of(ranks, ranks) == 0)).all()


def _read_topology(folder: Path) -> None:
    _check_topology(Topology.parse(_spec(folder)))


_LEVELS = b"""
[[levels]]
name = "node"
latency_s = 2e-06
bandwidth_Bps = 5e10
ports = 1
load_store = true

[[levels]]
name = "network"
latency_s = 5e-06
bandwidth_Bps = 1.25e10
"""
_TOMLS = (
    b'name = "t"\ntree = [2, 3]\n' + _LEVELS,
    b"tree = [1]\n" + _LEVELS,
    b'name = "g"\ngroups = [[0, 1, 0, 1]]\n' + _LEVELS,
    b'tree = [[1, 2], [3]]\n[[levels]]\nname = "socket"\nlatency_s = 0\nbandwidth_Bps = 1\n' + _LEVELS,
)


def _make_toml(rng: Random) -> bytes:
    heads = (*_TOMLS, b"tree = [", b"groups = [[", b"[levels]\n", b"levels = [[]]\n", b"levels = 1\ntree = [1]\n")
    return mutated(rng, rng.choice(_TOMLS)) if rng.random() < 0.8 else garbage(rng, heads)


def _toml_target() -> Target:
    def write(rng: Random, folder: Path) -> int:
        data = _make_toml(rng)
        (folder / "fuzz.toml").write_bytes(data)
        return len(data)

    def read(folder: Path) -> None:
        path = folder / "fuzz.toml"
        try:
            topology = Topology.parse(str(path))
        except InputError as err:
            assert str(path) in str(err)  # noqa: PT017 - see above
            raise
        _check_topology(topology)
        (folder / "again.toml").write_text(topology.to_toml(), encoding="utf-8")
        assert np.array_equal(Topology.parse(str(folder / "again.toml")).groups, topology.groups)

    return Target("topology .toml", write, read)


TARGETS = {
    target.name: target
    for target in (
        *(_file_target(suffix, _text(suffix)) for suffix in (".mtx", ".graph", ".txt")),
        *(_zipped_target(suffix) for suffix in (".mtx", ".graph", ".txt")),
        _file_target(".npz", _make_npz),
        Target("generator", _write_spec(_SPECS), _read_generator),
        Target("topology name", _write_spec(_TREES), _read_topology),
        _toml_target(),
        *DIRECTORIES,
    )
}
