"""Tables fit the terminal, however many strategies there are."""

from __future__ import annotations

from typing import Any

import pytest

from sparsecomm.apps.planning import plan_source
from sparsecomm.apps.source import load_source
from sparsecomm.collectives.strategy import strategy_names
from sparsecomm.launch.tables import show_plan
from sparsecomm.topology import Topology


@pytest.fixture
def report() -> dict[str, Any]:
    topology = Topology.parse("summit:2")
    made = plan_source(load_source("rmat:12", topology), topology).to_json()
    made["strategies"]["slow"] = None
    made["not_counted"] = {"slow": "it would take ages"}
    return made


def _lines(report: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> list[str]:
    show_plan(report)
    return capsys.readouterr().out.splitlines()


def test_one_line_for_each_strategy(report: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    lines = _lines(report, capsys)
    head = next(i for i, line in enumerate(lines) if line.split()[:1] == ["strategy"])
    assert lines[head].split() == ["strategy", "network", "node", "socket", "saved", "MB", "messages", "predicted"]
    counted = [name for name in strategy_names() if name != "cover-greedy"]
    shown = {line.split()[0]: line for line in lines[head + 2 : head + 2 + len(counted)]}
    assert list(shown) == counted
    assert max(map(len, shown.values())) <= 80
    assert [name for name, line in shown.items() if "*" in line] == [report["chosen"]]
    cover = report["strategies"]["cover"]["rows"]
    assert shown["cover"].replace("*", "").split()[1:4] == [f"{cover[n]:,}" for n in ("network", "node", "socket")]
    assert "slow not counted: it would take ages" in lines


def test_distance_to_the_bounds(report: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    """A second table: network rows, busiest node and busiest rank of every strategy, and how far above the bounds."""
    report["strategies"]["direct"]["gap_percent"] = {"network": None, "busiest_node": 1234.56}
    lines = _lines(report, capsys)
    head = next(i for i, line in enumerate(lines) if "over bound" in line)
    counted = [name for name in strategy_names() if name != "cover-greedy"]
    shown = {line.split()[0]: line.split()[1:] for line in lines[head + 2 : head + 2 + len(counted)]}
    assert list(shown) == counted
    direct, cover = (report["strategies"][name] for name in ("direct", "cover"))
    assert shown["direct"][1:2] + shown["direct"][3:5] == ["-", "1234.6", "%"]
    gap = cover["gap_percent"]
    assert shown["cover"] == [
        f"{cover['rows']['network']:,}",
        *f"{gap['network']:.1f} % {max(cover['max_node_rows'].values()):,} {gap['busiest_node']:.1f} %".split(),
        f"{cover['max_rank_rows']['network']:,}",
    ]
    assert direct["max_rank_rows"]["network"] == int(shown["direct"][-1].replace(",", ""))


def test_side_by_side_where_there_is_room(report: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    few = ("direct", "cover")
    report["strategies"] = {name: report["strategies"][name] for name in few}
    report |= {"not_counted": {}, "chosen": "cover"}
    (head,) = (line for line in _lines(report, capsys) if "level" in line and "direct" in line)
    assert head.replace("┃", " ").split() == ["level", "direct", "cover", "*"]
