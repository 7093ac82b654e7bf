"""The same matrix on many machines: which strategy wins where, and what limits it."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product

import numpy as np
import numpy.typing as npt

from sparsecomm.apps.growth import grown
from sparsecomm.apps.settings import Setting, changed
from sparsecomm.apps.source import Say, Source, load_source, quiet
from sparsecomm.apps.summary import Json, candidate_json, topology_json
from sparsecomm.collectives.strategies import Candidate, choose, fitting, passed_over
from sparsecomm.collectives.strategy import get_strategy, strategy_names
from sparsecomm.cost import CostModel
from sparsecomm.errors import InputError
from sparsecomm.pattern import Remote
from sparsecomm.table import Offline
from sparsecomm.topology import Topology
from sparsecomm.volume import Volume


@dataclass(frozen=True, slots=True)
class WhatIf:
    """What to compare.

    Args:
        matrix: a file or a generator.
        topologies: names; `summit:{1,2,4}` stands for three.
        settings: what is changed; every combination of their values is a case.
        strategies: which to count; none for all.
        width: columns of X where no setting gives them.
        method: of partitioning.
        dtype: of values and of X.
        one_based: whether an edge list counts from 1.
        weak: whether the matrix, a generator, grows with the ranks.
        memory_bytes: that a rank has for slots and message buffers; 0 is no limit.
    """

    matrix: str
    topologies: Sequence[str]
    settings: Sequence[Setting] = ()
    strategies: Sequence[str] = ()
    width: int = 64
    method: str = "block"
    dtype: npt.DTypeLike = np.float32
    one_based: bool = False
    weak: bool = False
    memory_bytes: int = 0


def what_if(asked: WhatIf, say: Say = quiet) -> Json:
    """Count the strategies on every machine and predict every case; nothing is built.

    Raises:
        InputError: something that was asked for cannot be.
    """
    begin = time.perf_counter()
    names = [name for spec in asked.topologies for name in expanded(spec)]
    machines = [Topology.parse(name) for name in names]
    _check(asked, machines)
    cases = [case for machine in machines for case in _cases(asked, machine, machines[0], say)]
    _compare(cases, asked.weak)
    return {
        "schema": "sparsecomm.what_if/1",
        "scaling": "weak" if asked.weak else "strong",
        "dtype": np.dtype(asked.dtype).name,
        "partition": asked.method,
        "cases": cases,
        "wins": dict(Counter(case["chosen"] for case in cases).most_common()),
        "seconds": time.perf_counter() - begin,
    }


def expanded(spec: str) -> list[str]:
    """Return the names that braces stand for.

    Example:
        >>> expanded("summit:{1,8}")
        ['summit:1', 'summit:8']
    """
    found = re.fullmatch(r"([^{}]*)\{([^{}]*)\}([^{}]*)", spec)
    if found is None:
        return [spec]
    before, words, after = found.groups()
    return [f"{before}{word.strip()}{after}" for word in words.split(",")]


def _check(asked: WhatIf, machines: list[Topology]) -> None:
    """Refuse what cannot be before anything is read."""
    for setting in asked.settings:
        for value in setting.numbers() if setting.of_plan else setting.values:
            for machine in [] if setting.of_plan else machines:
                changed(machine, setting.key, str(value))
    keys = [setting.key for setting in asked.settings]
    if len(set(keys)) < len(keys):
        raise InputError(f"{', '.join(keys)}: a key is set twice; give its values by commas, KEY=1x,2x")
    for name in asked.strategies:
        get_strategy(name)
    for machine in machines if asked.weak else []:
        grown(asked.matrix, Fraction(machine.num_ranks, machines[0].num_ranks))


def _cases(asked: WhatIf, machine: Topology, first: Topology, say: Say) -> Iterator[Json]:
    """Partition for one machine and yield its cases, settings in the order in which they were given."""
    factor = Fraction(machine.num_ranks, first.num_ranks)
    source = load_source(
        grown(asked.matrix, factor) if asked.weak else asked.matrix,
        machine,
        method=asked.method,
        dtype=asked.dtype,
        one_based=asked.one_based,
        say=say,
    )
    remote = Remote.of(source.matrix, source.layouts)
    of_machine = [setting for setting in asked.settings if not setting.of_plan]
    for values in product(*(setting.values for setting in of_machine)):
        chosen = {setting.key: value for setting, value in zip(of_machine, values, strict=True)}
        topology = machine
        for key, value in chosen.items():
            topology = changed(topology, key, value)
        say(f"counting the strategies on {machine.name}")
        counted = _count(remote, topology, asked.strategies)
        for width, depth in product(*(_numbers(asked, key) for key in ("width", "depth"))):
            yield _case(asked, source, topology, counted, chosen, width, depth)


def _numbers(asked: WhatIf, key: str) -> list[int]:
    usual = {"width": asked.width, "depth": 1}
    return next((setting.numbers() for setting in asked.settings if setting.key == key), [usual[key]])


Counted = tuple[dict[str, Volume], dict[str, str]]


def _count(remote: Remote, topology: Topology, wanted: Sequence[str]) -> Counted:
    """Return what each strategy moves, and why others were not counted; those asked for are."""
    router = Offline(topology.num_ranks)
    late = {} if wanted else passed_over(remote, topology, router)
    names = [name for name in wanted or strategy_names() if name not in late]
    return {name: get_strategy(name).count(remote, topology, router) for name in names}, late


def _case(
    asked: WhatIf, source: Source, topology: Topology, counted: Counted, chosen: Json, width: int, depth: int
) -> Json:
    volumes, late = counted
    itemsize, model = np.dtype(asked.dtype).itemsize, CostModel(topology, depth=depth)
    nnz = int(source.loads().nnz.max(initial=0))
    found = {
        name: Candidate(get_strategy(name), volume, model.estimate(volume, width, itemsize, nnz))
        for name, volume in volumes.items()
    }
    found, large = fitting(found, width * itemsize, asked.memory_bytes)
    late = late | large
    best = found[choose(found).name].estimate
    return {
        "matrix": source.info.to_json(),
        "topology": topology_json(topology),
        "settings": chosen,
        "width": width,
        "depth": depth,
        "imbalance": source.loads().imbalance(topology),
        "strategies": {name: candidate_json(one, topology, width, itemsize) for name, one in found.items()}
        | dict.fromkeys(late),
        "not_counted": late,
        "chosen": choose(found).name,
        "predicted_s": best.total_s,
        "limit": best.limit(topology.level_names),
    }


def _compare(cases: list[Json], weak: bool) -> None:
    """Add speed-up and parallel efficiency against the first machine with the same settings and width."""
    first: dict[str, Json] = {}
    for case in cases:
        base = first.setdefault(repr((case["settings"], case["width"], case["depth"])), case)
        ratio = base["predicted_s"] / case["predicted_s"] if case["predicted_s"] else 1.0
        more = case["topology"]["ranks"] / base["topology"]["ranks"]
        case["speedup"] = ratio * more if weak else ratio
        case["efficiency"] = ratio if weak else ratio / more
