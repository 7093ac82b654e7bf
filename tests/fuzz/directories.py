"""Plan and partition directories with damaged files, and what must hold whether they are read or refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import scipy.sparse as sp

from sparsecomm.collectives.strategy import get_strategy
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
from tests.fuzz.mutate import mutated, npy
from tests.fuzz.target import Target, check_matrix


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


DIRECTORIES = (
    _directory_target("partition directory", save_example_partition, _read_partition),
    _directory_target("plan directory", save_example_product, _read_product),
)
