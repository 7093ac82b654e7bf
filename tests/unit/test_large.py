"""What passes 2**31, on threads."""

from __future__ import annotations

from collections.abc import Callable

import psutil
import pytest

from sparsecomm.collectives.transport.base import Transport
from sparsecomm.collectives.transport.local import run_local
from sparsecomm.layout import Layout, Layouts
from sparsecomm.pattern import Remote
from sparsecomm.table import Offline
from sparsecomm.topology import Topology
from sparsecomm.volume import bounds_of
from tests import large_bodies


@pytest.mark.parametrize("num_ranks", [2, 4])
@pytest.mark.parametrize("body", large_bodies.BODIES, ids=lambda body: body.__name__)
def test_body(body: Callable[[Transport], None], num_ranks: int) -> None:
    run_local(num_ranks, body)


@pytest.mark.campaign
def test_message_beyond_2_gib() -> None:
    available = psutil.virtual_memory().available / 2**30
    if available < 12:
        pytest.skip(f"a message of 2 GiB needs 12 GiB of memory; {available:.1f} GiB are available")
    run_local(2, large_bodies.check_message_beyond_2_gib, deadline_s=300)


def test_bounds() -> None:
    layouts = Layouts(Layout.block(6, 4), Layout.block(large_bodies.NUM_ROWS, 4))
    remote = Remote.of(large_bodies.wide_matrix(layouts), layouts)
    bounds = bounds_of(remote, Topology.parse("uniform:2x2"), Offline(4))
    # Four rows on one node and two on the other, each of them needing six columns from over there.
    assert bounds.network == bounds.two_party_minimum == 6
