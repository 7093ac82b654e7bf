"""Rounds: proper colourings with as few colours as can be, and exchanges that post in their order."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest

from sparsecomm.apps.matrix import DistMatrix
from sparsecomm.collectives.exchange import Exchange
from sparsecomm.collectives.execute import execute, execute_reverse
from sparsecomm.collectives.rounds import colour_messages, rounds_of
from sparsecomm.collectives.strategies import make_product
from sparsecomm.collectives.transport.base import Transport
from sparsecomm.collectives.transport.local import run_local
from sparsecomm.errors import PlanError
from sparsecomm.io.matrix import read_matrix
from sparsecomm.layout import Layout, Layouts
from sparsecomm.pattern import Remote
from sparsecomm.product import Product
from sparsecomm.topology import Topology
from tests.transport_wrappers import Posts


def _check_colouring(src: list[int], dst: list[int]) -> None:
    rounds = colour_messages(np.array(src, dtype=np.int32), np.array(dst, dtype=np.int32)).tolist()
    for side in (src, dst):
        assert max(Counter(zip(side, rounds, strict=True)).values(), default=1) == 1
    degree = max([*Counter(src).values(), *Counter(dst).values()], default=0)
    assert set(rounds) == set(range(degree))


@pytest.mark.parametrize("seed", range(60))
def test_random_messages(seed: int) -> None:
    """From a few messages to all of them, ranks numbered with gaps, some much busier than others."""
    rng = np.random.default_rng(seed)
    senders, receivers = (rng.choice(100, int(rng.integers(1, 25)), replace=False) for _ in range(2))
    weights = rng.random(senders.size)[:, None] ** 3 * rng.random(receivers.size) ** 3
    there = rng.random(weights.shape) < weights ** rng.choice([0.0, 0.1, 0.5, 1.0])
    left, right = np.nonzero(there)
    shuffled = rng.permutation(left.size)
    _check_colouring(senders[left][shuffled].tolist(), receivers[right][shuffled].tolist())


def test_all_to_all_and_one_to_all() -> None:
    pairs = [(p, q) for p in range(16) for q in range(16) if p != q]
    _check_colouring(*map(list, zip(*pairs, strict=True)))
    _check_colouring([3] * 7, list(range(7)))
    _check_colouring(list(range(7)), [3] * 7)
    _check_colouring([], [])


def _product(num_ranks: int, strategy: str) -> tuple[Product, Remote]:
    topology = Topology.parse({4: "uniform:2x2", 7: "nodes:3,3,1"}[num_ranks])
    layout = Layout.block(256, num_ranks)
    remote = Remote.of(read_matrix("rmat:8:6"), Layouts(layout, layout))
    return make_product(remote, topology, strategy), remote


@pytest.mark.parametrize("num_ranks", [4, 7])
@pytest.mark.parametrize("strategy", ["direct", "cover"])
def test_posted_in_rounds(num_ranks: int, strategy: str) -> None:
    """In every stage no rank sends twice or receives twice in a round; each posts in that order, with equal results."""
    product, _ = _product(num_ranks, strategy)
    plan = product.gather
    rng = np.random.default_rng(1)
    xs = np.split(rng.standard_normal((256, 3)), plan.offsets[1:-1])
    ys = np.split(rng.standard_normal((plan.ghost_rows.size, 3)), plan.ghost_indptr[1:-1])
    dealt: dict[int, dict[tuple[int, int], int]] = defaultdict(dict)

    def body(transport: Transport) -> None:
        p, mine = transport.rank, plan.rank(transport.rank)
        rounds = rounds_of(mine, transport)
        for number, (stage, own) in enumerate(zip(mine.stages, rounds, strict=True)):
            for peer, turn in zip(stage.send.peers.tolist(), own.send.tolist(), strict=True):
                dealt[number][p, peer] = turn
        transport.barrier()
        for number, (stage, own) in enumerate(zip(mine.stages, rounds, strict=True)):
            peers = stage.recv.peers.tolist()
            assert [dealt[number][peer, p] for peer in peers] == own.recv.tolist()
        noted = Posts(transport)
        with Exchange(mine, noted, 3, np.float64, rounds=True) as exchange:
            np.testing.assert_array_equal(exchange.forward(xs[p]), execute(plan, xs)[p])
            if strategy == "direct":  # where no message waits for another one
                expected = [(t, turn, peer) for t in dealt for (src, peer), turn in dealt[t].items() if src == p]
                assert noted.peers == [peer for *_, peer in sorted(expected)]
            noted.peers.clear()
            np.testing.assert_array_equal(exchange.reverse(ys[p]), execute_reverse(plan, ys)[p])
            if strategy == "direct":
                expected = [(-t, turn, peer) for t in dealt for (peer, dst), turn in dealt[t].items() if dst == p]
                assert noted.peers == [peer for *_, peer in sorted(expected)]

    run_local(num_ranks, body)
    for messages in dealt.values():
        _check_colouring_of(messages)


def _check_colouring_of(messages: dict[tuple[int, int], int]) -> None:
    for side in (0, 1):
        assert max(Counter((pair[side], turn) for pair, turn in messages.items()).values()) == 1
    degrees = [max(Counter(pair[side] for pair in messages).values()) for side in (0, 1)]
    assert set(messages.values()) == set(range(max(degrees)))


def test_describe_says_how_many() -> None:
    product, _ = _product(7, "direct")
    lines = [line.split() for line in product.describe().splitlines() if line.split()[0] == "gather"]
    for line, stage in zip(lines, product.gather.stages, strict=True):
        pairs = {*zip(stage.src.tolist(), stage.dst.tolist(), strict=True)}
        src, dst = zip(*sorted(pairs), strict=True)
        assert int(line[-1]) == colour_messages(np.array(src), np.array(dst)).max() + 1


def test_matrix_in_rounds_and_ranks_that_differ() -> None:
    product, remote = _product(4, "cover")
    matrix = read_matrix("rmat:8:6")
    matrix.data[:] = np.arange(matrix.nnz) % 7 - 3
    x = np.random.default_rng(2).integers(-9, 9, (256, 2)).astype(np.float64)

    def body(transport: Transport) -> None:
        own = product.layouts.rows.own_rows(transport.rank)
        mine = slice(own.start, own.stop)
        part = product.rank(transport.rank, remote)
        with DistMatrix(matrix[mine], part, product.topology, transport, rounds=True) as a:
            np.testing.assert_array_equal(a @ x[mine], (matrix @ x)[mine])
            np.testing.assert_array_equal(a.T @ x[mine], (matrix.T @ x)[mine])
        layouts, differ = product.layouts, transport.rank == 1
        with pytest.raises(PlanError, match="rounds"):
            DistMatrix.from_rows(matrix[mine], layouts, product.topology, transport, rounds=differ) @ x[mine]
        with pytest.raises(PlanError, match="rounds"):
            Exchange(part.gather, transport, 1, rounds=differ)

    run_local(4, body)
