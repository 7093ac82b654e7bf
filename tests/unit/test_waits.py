"""What the reports of ranks that wait say together."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from sparsecomm.collectives.transport import waits
from sparsecomm.collectives.transport.waits import (
    DEFAULT_S,
    END,
    VARIABLE,
    Wait,
    Waiting,
    WaitReport,
    check_deadline,
    read_deadline,
    summarise,
)
from sparsecomm.errors import InputError

NODES = ["node0", "node0", "node1", "node1", "node2", "node2"]


def reports(waits: dict[int, tuple[int, ...]], what: str = "a run forwards of plan 1f") -> list[WaitReport]:
    return [WaitReport(p, NODES[p], Waiting(what, peers, "stage 1 of 3"), 5.0) for p, peers in waits.items()]


def verdict(lines: list[str]) -> str:
    assert lines[-1].startswith("at fault: ")
    return lines[-1].removeprefix("at fault: ")


def test_a_rank_that_says_nothing_is_named_with_the_chain_that_leads_to_it() -> None:
    lines = summarise(reports({0: (1,), 1: (4,), 2: (1,), 3: (0, 2), 5: (3,)}), NODES)
    assert lines[0] == "5 of 6 ranks report"
    assert "  rank 0 on host node0 has waited 5.0 s in stage 1 of 3 of a run forwards of plan 1f, for rank 1" in lines
    chain = "itself waiting for rank 3, itself waiting for rank 0, itself waiting for rank 1, itself waiting for rank 4"
    assert f"  rank 5 waits for rank 3, {chain.partition(', ')[2]}" in lines
    assert verdict(lines).startswith("rank 4 on host node2: nothing was heard")


def test_all_ranks_of_a_host_silent() -> None:
    assert verdict(summarise(reports({0: (2,), 1: (0,), 4: (3,), 5: (4,)}), NODES)) == (
        "host node1 (ranks 2, 3): nothing was heard; cut off?"
    )


def test_a_host_that_hears_only_itself_does_not_blame_the_others() -> None:
    found = verdict(summarise(reports({0: (2,), 1: (5,)}), NODES))
    assert found == "host node0: cut off from all others, none of which was heard"


def test_of_two_hosts_neither_is_blamed() -> None:
    found = verdict(summarise(reports({0: (2,), 1: (2,)}), NODES[:4]))
    assert found.startswith("the link between hosts node0 and node1")


def test_a_rank_at_its_end_is_to_blame() -> None:
    said = [*reports({0: (2,), 1: (0,)}), WaitReport(2, "node1", Waiting(END), 1.0)]
    assert verdict(summarise(said, NODES[:3])) == f"rank 2 on host node1: came to {END} while others wait"


def test_ranks_in_different_calls() -> None:
    said = [*reports({0: (1,), 2: (1,)}), *reports({1: ()}, what="a barrier")]
    found = verdict(summarise(said, NODES[:3]))
    assert found.startswith("all ranks wait, in different calls: rank 1 in a barrier; ranks 0, 2 in a run forwards")


def test_a_circle_ends() -> None:
    lines = summarise(reports({0: (1,), 1: (2,), 2: (0,)}), NODES[:3])
    assert "  rank 0 waits for rank 1, itself waiting for rank 2, itself waiting for rank 0" in lines
    assert verdict(lines) == "a message was lost: all ranks wait in the same call"


def test_many_ranks_make_few_lines() -> None:
    said = [WaitReport(p, "h", Waiting("a barrier"), 5.0) for p in range(1000) if p != 70]
    lines = summarise(said, ["h"] * 1000)
    assert len(lines) < 15
    assert "  and 991 more" in lines
    many = verdict(summarise(said[:500], ["h"] * 1000))
    assert many.startswith("ranks 70, 501, 502, 503, 504, 505, 506, 507, ... (500 in all) on h")


@pytest.mark.parametrize(("text", "seconds"), [("", DEFAULT_S), ("0", 0.0), ("2.5", 2.5), ("1e3", 1000.0)])
def test_deadline_of_the_environment(text: str, seconds: float) -> None:
    assert read_deadline({VARIABLE: text}) == seconds


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf", "5s"])
def test_deadline_that_is_none(text: str) -> None:
    with pytest.raises(InputError, match=r"SPARSECOMM_DEADLINE='.*' is no number of seconds"):
        read_deadline({VARIABLE: text})


def test_deadline_argument() -> None:
    with pytest.raises(InputError, match="0 for none, not -1"):
        check_deadline(-1)
    with pytest.raises(InputError, match="not nan"):
        check_deadline(math.nan)


def test_a_wait_looks_now_and_then_and_no_more_after_its_deadline_of_zero() -> None:
    class Watch:
        deadline_s, looks = 0.05, 0

        def look(self, wait: Wait) -> None:
            self.looks += 1
            if wait.too_long:
                raise TimeoutError

    watch = Watch()
    wait = Wait(watch, lambda: Waiting("nothing"))
    with pytest.raises(TimeoutError):
        idle_for_ever(wait)
    assert watch.looks <= 3
    patient = Wait(watch, lambda: Waiting("nothing"), deadline_s=0)
    while patient.seconds < 0.2:
        patient.idle()
    assert not patient.too_long


@pytest.mark.parametrize("crowded", [False, True])
def test_sleeps_where_others_want_the_core(crowded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Watch:
        deadline_s = 0.0

        def look(self, wait: Wait) -> None:
            """Nothing happens."""

    clock, naps = [100.0], []

    def give_way() -> None:
        clock[0] += 1e-3 if crowded else 1e-6

    monkeypatch.setattr(waits, "give_way", give_way)
    monkeypatch.setattr(waits, "time", SimpleNamespace(monotonic=lambda: clock[0], sleep=naps.append))
    monkeypatch.setattr(waits._Cores, "crowded_until_s", 0.0)
    wait = Wait(Watch(), lambda: Waiting("nothing"))
    for _ in range(20):
        wait.idle()
    assert len(naps) == (16 if crowded else 0)


def idle_for_ever(wait: Wait) -> None:
    while True:
        wait.idle()
