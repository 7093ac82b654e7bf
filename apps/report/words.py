"""One paragraph on what limits a plan or a run, and what to try; every sentence rests on figures of the report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sparsecomm.apps.summary import Json
from sparsecomm.topology import DETECTED

_UNEVEN: Final = 1.5  # max / mean from which a level is called uneven
_SMALL: Final = 4.0  # latency over transfer time from which messages are called small
_GAP: Final = 0.10  # rows above the lower bound from which there is something to win
_WAITING: Final = 0.3  # share of a product from which waiting is called the limit

_EVEN: Final = ("striped", "cover-striped", "cover-balanced")  # strategies that spread rows over the ranks of a node

_ADVICE: Final = {
    "product": "the local product takes most time: more ranks, or a faster kernel, would help more than a plan",
    "pack": "copying rows into messages takes most time: give X in the matrix's own memory (`empty`)",
    "send": "handing messages to the MPI library takes most time: fewer, longer messages would help",
    "wait": "waiting takes most time",
    "unpack": "copying rows out of messages takes most time",
    "drain": "waiting for sends to leave takes most time: the network, or a slow receiver, limits",
}


def in_words(report: Json) -> str:
    """Return a few sentences on a report (see `summary.summarise`)."""
    return " ".join(sentence[0].upper() + sentence[1:] + "." for sentence in _sentences(report))


def machine_of(report: Json) -> str:
    """Return what people call the topology of a report; one that was found in a job has no name of its own."""
    topology = report["topology"]
    found = topology["name"] == DETECTED
    return f"{topology['ranks']} ranks on {topology['nodes']} nodes" if found else str(topology["name"])


def _sentences(report: Json) -> Iterator[str]:
    yield from _on_lost(report)
    yield from _on_volume(report)
    yield from _on_time(report)
    yield from _on_levels(report)


def _on_lost(report: Json) -> Iterator[str]:
    lost = report["missing"]
    if lost:
        names = ", ".join(f"{rank} ({why})" for rank, why in list(lost.items())[:4])
        more = f" and {len(lost) - 4} more" if len(lost) > 4 else ""
        yield (
            f"the files of {len(lost)} of {report['topology']['ranks']} ranks cannot be had, so this is partial: "
            f"rank {names}{more}"
        )


def _on_volume(report: Json) -> Iterator[str]:
    saved, bounds = report["saved"], report["bounds"]
    if saved and saved["naive_rows"] and report["strategy"] != saved["naive"]:
        verb = "saves" if saved["share"] >= 0 else "costs"
        yield (
            f"{report['strategy']} {verb} {abs(100 * saved['share']):.1f} % of the {saved['level']} rows that "
            f"{saved['naive']} moves ({saved['rows']:,} instead of {saved['naive_rows']:,})"
        )
    if bounds and bounds["lower_bound"]:
        if bounds["gap"] <= _GAP:
            near = f"within {100 * bounds['gap']:.1f} % of the lower bound"
            yield f"the network rows are {near}: only another partition can do better"
        elif bounds["rows"] == bounds["two_party_minimum"]:
            yield (
                "the network rows are the two-party minimum: no schedule that multiplies at the owner of the row or of "
                f"the column moves less, though the lower bound is {bounds['lower_bound']:,}"
            )
        else:
            yield (
                f"the network rows are {100 * bounds['gap']:.0f} % above the lower bound of {bounds['lower_bound']:,}; "
                f"the two-party minimum, strategy cover, is {bounds['two_party_minimum']:,}"
            )


def _on_time(report: Json) -> Iterator[str]:
    time = report["time"]
    parts = time["parts"]
    if parts:
        means = parts["mean_s"]
        most = max(means, key=lambda name: means[name])
        whole = sum(means.values())
        share = means[most] / whole if whole else 0.0
        yield f"{_ADVICE[most]} ({100 * share:.0f} % of what was recorded)"
        if most == "wait" and share >= _WAITING:
            yield from _on_waiting(report)
        if parts["overlap"] is not None:
            yield f"{100 * parts['overlap']:.0f} % of the communication is hidden behind the product"
    if time["predicted_s"] and time["measured_s"]:
        ratio = time["measured_s"] / time["predicted_s"]
        yield f"a product takes {ratio:.1f} times what was predicted for {machine_of(report)}"


def _on_waiting(report: Json) -> Iterator[str]:
    slow = [stage for stage in report["stages"] if stage["measured"]]
    if slow:
        worst = max(slow, key=lambda stage: stage["measured"]["wait_s"])
        yield f"most of it is for stage {worst['stage']} of {worst['part']}, at level {worst['level']}"


def _on_levels(report: Json) -> Iterator[str]:
    levels = {name: level for name, level in report["levels"].items() if level["messages"]}
    if not levels:
        yield "nothing moves between ranks"
        return
    slowest = max(levels, key=lambda name: levels[name]["predicted_s"])
    level = levels[slowest]
    predicted = report["time"]["predicted_s"]
    share = f", {100 * level['predicted_s'] / predicted:.0f} % of the time of a product" if predicted else ""
    yield f"by the model, {slowest} is the level that takes longest{share}"
    if level["imbalance"] > _UNEVEN:
        even = report["strategy"] in _EVEN
        other = "" if even else f"strategy {' or '.join(_EVEN)}, or "
        yield (
            f"its busiest rank moves {level['imbalance']:.1f} times the mean: try {other}a partition that balances "
            "communication"
        )
    size = level["message_bytes"]["median"]
    if level["latency_s"] * level["peak_Bps"] > _SMALL * size:
        yield f"its messages are small (median {size:,.0f} bytes), so that latency counts more than bandwidth there"
