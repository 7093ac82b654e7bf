"""Every reader with inputs to break, and what must hold whether it reads or refuses."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import scipy.sparse as sp

from sparsecomm.collectives.strategy import get_strategy
from sparsecomm.errors import InputError
from sparsecomm.io import read_matrix
from sparsecomm.layout import Layout, Layouts
from sparsecomm.matrix_store import (
    load_matrix,
    load_partition_header,
    load_partition_layouts,
    partition_seconds,
    save_partition,
)
from sparsecomm.pattern import Remote
from sparsecomm.product_store import load_product, load_product_header, load_topology, save_product
from sparsecomm.topology import Topology
from tests.fuzz.mutate import TOKENS, garbage, mutated, npy, unzipped_size, with_changed_member, zipped


@dataclass(frozen=True)
class Target:
    """A reader under fire.

    Args:
        name: of the reader.
        write: puts input number `seed` into a folder and returns the bytes it holds, unpacked.
        read: reads it; returns, raises `InputError`, or has failed.
    """

    name: str
    write: Callable[[Random, Path], int]
    read: Callable[[Path], None]


def check_matrix(matrix: sp.csr_array) -> None:
    assert isinstance(matrix, sp.csr_array)
    assert matrix.has_canonical_format
    assert matrix.has_sorted_indices
    assert np.isfinite(matrix.data).all()
    matrix.check_format(full_check=True)


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


def _example() -> tuple[sp.csr_array, Layouts, Topology]:
    matrix = sp.random_array((20, 20), density=0.2, rng=np.random.default_rng(3), format="csr")
    layout = Layout.from_owners(np.arange(20, dtype=np.int32) * 7 % 3 % 2, 2)
    return sp.csr_array(matrix), Layouts(layout, layout), Topology.parse("nodes:1,1")


_FACTS = {"name": "m", "rows": 20, "cols": 20, "nnz": 80, "fingerprint": "00"}


def save_example_partition(path: Path) -> None:
    matrix, layouts, topology = _example()
    header = {"matrix": _FACTS, "topology": topology.to_dict(), "num_ranks": 2, "method": "block", "seconds": 0.5}
    save_partition(path, matrix, layouts, header)


def save_example_product(path: Path) -> None:
    matrix, layouts, topology = _example()
    remote = Remote.of(matrix, layouts)
    save_product(path, get_strategy("hierarchical").build(remote, topology), remote, _FACTS)


def _mend(folder: Path) -> None:
    """Put back what the input before has changed."""
    note = folder / "damaged"
    for name in note.read_text().split("\n") if note.exists() else []:
        path = folder / "dir" / name
        if path.is_dir():
            path.rmdir()
        shutil.copyfile(folder / "sound" / name, path)


def _damage(rng: Random, folder: Path) -> None:
    """Change one or two files of a directory, the header more often than each other."""
    files = sorted(path for path in (folder / "dir").rglob("*") if path.is_file())
    chosen = [
        folder / "dir/header.json" if rng.random() < 0.4 else rng.choice(files) for _ in range(rng.choice((1, 1, 2)))
    ]
    (folder / "damaged").write_text("\n".join(str(path.relative_to(folder / "dir")) for path in chosen))
    for path in chosen:
        if not path.is_file():
            continue
        kind = rng.random()
        if path.suffix == ".json":
            path.write_bytes(_changed_json(rng, path.read_bytes()) if kind < 0.6 else mutated(rng, path.read_bytes()))
        elif kind < 0.1:
            path.unlink()
            if rng.random() < 0.3:
                path.mkdir()
        elif kind < 0.4:
            path.write_bytes(npy(rng))
        elif kind < 0.5:
            path.write_bytes(rng.choice([file for file in files if file.is_file()]).read_bytes())
        else:
            path.write_bytes(mutated(rng, path.read_bytes()))


_ODD = (
    None,
    True,
    -1,
    0,
    1,
    2,
    4,
    10**6,
    2**63,
    2**64,
    1e400,
    0.5,
    "",
    "x",
    "\0",
    [],
    [1],
    [[]],
    {},
    {"a": 1},
    [None] * 3,
)


def _changed_json(rng: Random, text: bytes) -> bytes:
    """Replace or remove one value of a JSON document, however deep."""
    try:
        whole = [json.loads(text)]
    except ValueError:
        return text
    place, key = whole, 0
    while isinstance(place[key], dict | list) and place[key] and rng.random() < 0.75:
        place = place[key]
        key = rng.choice(list(place)) if isinstance(place, dict) else rng.randrange(len(place))
    if isinstance(place, dict) and rng.random() < 0.15:
        del place[key]
    else:
        place[key] = rng.choice(_ODD)
    return json.dumps(whole[0]).encode()


def _read_partition(folder: Path) -> None:
    path = folder / "dir"
    header = load_partition_header(path)
    layouts = load_partition_layouts(path, header)
    partition_seconds(header)
    matrix = load_matrix(path, layouts)
    check_matrix(matrix)
    assert matrix.shape == (layouts.rows.num_rows, layouts.cols.num_rows)


def _read_product(folder: Path) -> None:
    path = folder / "dir"
    header = load_product_header(path)
    load_topology(path, header)
    load_product(path).verify()


def _directory_target(name: str, save: Callable[[Path], None], read: Callable[[Path], None]) -> Target:
    def write(rng: Random, folder: Path) -> int:
        if not (folder / "sound").exists():
            save(folder / "sound")
            shutil.copytree(folder / "sound", folder / "dir")
        _mend(folder)
        _damage(rng, folder)
        return sum(path.stat().st_size for path in (folder / "dir").rglob("*") if path.is_file())

    return Target(name, write, read)


TARGETS = {
    target.name: target
    for target in (
        *(_file_target(suffix, _text(suffix)) for suffix in (".mtx", ".graph", ".txt")),
        *(_zipped_target(suffix) for suffix in (".mtx", ".graph", ".txt")),
        _file_target(".npz", _make_npz),
        Target("generator", _write_spec(_SPECS), _read_generator),
        Target("topology name", _write_spec(_TREES), _read_topology),
        _toml_target(),
        _directory_target("partition directory", save_example_partition, _read_partition),
        _directory_target("plan directory", save_example_product, _read_product),
    )
}
