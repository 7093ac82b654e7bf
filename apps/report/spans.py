"""What a recorded span is about."""

from __future__ import annotations

from typing import Any

from sparsecomm.apps.report.case import Case
from sparsecomm.profile import COLUMNS, RECV, SEND, Kind
from sparsecomm.profile_store import RankProfile

_WORDS = {Kind.PACK: "pack", Kind.POST: "send", Kind.WAIT: "wait", Kind.UNPACK: "unpack", Kind.LAND: "arrival"}


def span_text(case: Case, rank: RankProfile, kind: Kind, track: int, index: int) -> tuple[str, dict[str, Any]]:
    """Return the name of a span, and its message if it is about one."""
    if kind == Kind.PRODUCT:
        return list(rank.meta["products"])[index], {}
    if kind in (Kind.RUN, Kind.DRAIN):
        return ("drain" if kind == Kind.DRAIN else case.parts[track]), {}
    side = SEND if kind in (Kind.PACK, Kind.POST) else RECV
    one = _message(rank, track, side, index)
    way = "to" if side == SEND else "from"
    about = {"part": case.parts[track], "stage": one["stage"], "level": case.topology.level_names[one["level"]]}
    return f"{_WORDS[kind]} {way} {one['peer']}", about | {"peer": one["peer"], "rows": one["rows"]}


def _message(rank: RankProfile, track: int, side: int, index: int) -> dict[str, int]:
    """Return a message by its number among the sends or the receives of its track; tables lie by track and side."""
    table = rank.messages
    first = int(((table[:, 0] < track) | ((table[:, 0] == track) & (table[:, 1] < side))).sum())
    return dict(zip(COLUMNS, table[first + index].tolist(), strict=True))
