"""The report of `sparsecomm sdnn` on standard output."""

from __future__ import annotations

from typing import Any, Final

from sparsecomm.launch.tables import seconds

Json = dict[str, Any]

# Layers that are shown, the first ones and the last: images die early.
_SHOWN: Final = 10


def show_sdnn(report: Json) -> None:
    """Print what ran, what moved, the layers, the rate and whether the categories are right."""
    network, inputs, memory = report["network"], report["inputs"], report["memory"]
    print(
        f"{network['name']}: {network['neurons']:,} neurons, {network['layers']:,} layers"
        f" ({network['distinct_layers']:,} distinct), {network['edges']:,} edges, bias {network['bias']:g}"
    )
    print(f"{inputs['name']}: {inputs['count']:,} images, at most {report['width']} in a batch")
    print(
        f"mode {report['mode']}: {report['ranks']} ranks in {report['groups']} groups"
        + (f", partition {report['partition']}, strategy {report['strategy']}" if report["strategy"] else "")
    )
    _show_layers(report)
    _show_moved(report)
    read = f"{memory['read_bytes'] / 1e6:,.0f} MB of weights read in {memory['read_requests']:,} requests"
    print(
        f"peak memory of a process {memory['peak'] / 2**20:,.0f} MiB"
        + (f" of {memory['limit'] / 2**20:,.0f} allowed" if memory["limit"] else "")
        + (f", {read}" if memory["streamed"] else "")
    )
    spread = report["seconds"]
    print(f"inference {seconds(spread['median'])} (min {seconds(spread['min'])}, max {seconds(spread['max'])})")
    print(f"{report['edges_per_s']:.4g} edges/s: images x edges / seconds, as the challenge counts")
    print(f"{report['categories']:,} categories" + _verdict(report))


def _show_layers(report: Json) -> None:
    times, alive = report["layer_seconds"], report["layer_alive"]
    count = len(times)
    shown = [layer for layer in range(count) if layer < _SHOWN or layer == count - 1]
    print("\n layer      time     alive")
    for layer in shown:
        if layer == count - 1 > _SHOWN:
            print("   ...")
        print(f"{layer + 1:6,} {seconds(times[layer]):>9s} {alive[layer]:9,}")
    print()


def _show_moved(report: Json) -> None:
    for level, rows in report["rows"].items():
        if rows:
            moved, messages = report["bytes"][level], report["messages"][level]
            print(f"{level}: {rows:,} rows of a batch, {moved / 1e6:,.1f} MB, {messages:,} messages")
    if report["rebalanced_images"]:
        print(f"rebalanced: {report['rebalanced_images']:,} images changed their group")


def _verdict(report: Json) -> str:
    if report["verified"] is None:
        return ""
    names = {"truth": "the truth", "scipy": "a plain scipy loop"}
    parts = [("equal to " if same else "DIFFERENT from ") + names[key] for key, same in report["checked"].items()]
    return ", " + ", ".join(parts)
