"""The page that `sparsecomm doctor` prints: what there is, what differs between ranks, and what is wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TextIO

from rich.console import Console
from rich.text import Text

from sparsecomm.launch.doctor.check_mpi import match
from sparsecomm.launch.doctor.differences import describe, name_ranks
from sparsecomm.launch.doctor.facts import Facts, Process
from sparsecomm.launch.doctor.finding import ERROR, NOTE, WARNING, Finding
from sparsecomm.launch.doctor.limits import Limits
from sparsecomm.launch.doctor.sizes import size_text
from sparsecomm.launch.doctor.software import versions
from sparsecomm.launch.machine.cpus import Cpus, format_list
from sparsecomm.launch.machine.gpus import Gpu

Row = tuple[str, list[str]]
Section = tuple[str, list[Row]]
# A page is to be read: nodes are mostly alike, and where they are not, a finding says so.
_MOST_NODES = 8
_STYLES = {ERROR: "bold red", WARNING: "yellow", NOTE: "cyan"}


def show_page(facts: Facts, findings: Sequence[Finding], file: TextIO | None = None) -> None:
    """Print the page; names from outside are printed as they are."""
    out = file or sys.stdout
    console = Console(file=out, width=None if out.isatty() else 110, markup=False, highlight=False, emoji=False)
    for heading, rows in make_sections(facts):
        console.print(Text(heading, style="bold"))
        for label, lines in rows:
            _print_entry(console, Text(f"  {label}"), 18, lines)
    console.print(Text("findings", style="bold"))
    for finding in findings:
        _print_finding(console, finding)
    console.print(Text(f"  {verdict(findings)}"))


def verdict(findings: Sequence[Finding]) -> str:
    """Return in a line how many findings there are of each level."""
    counts = [(level, sum(finding.level == level for finding in findings)) for level in (ERROR, WARNING, NOTE)]
    said = [f"{count} {level}{'s' if count > 1 else ''}" for level, count in counts if count]
    return ", ".join(said) if said else "nothing is wrong"


def make_sections(facts: Facts) -> list[Section]:
    """Return headings and rows of the page, without the findings."""
    return [
        ("job", _job(facts)),
        ("MPI", _mpi(facts)),
        ("GPUs", _gpus(facts)),
        ("CPUs", _cpus(facts)),
        ("limits", _limits(facts)),
        ("Python", _python(facts)),
    ]


def _job(facts: Facts) -> list[Row]:
    place = facts.first.place
    if place is None:
        return [("launcher", ["none: one process"]), ("node", [facts.first.host])]
    rows: list[Row] = [("launcher", [f"{place.launcher}, {place.size} rank{'s' if place.size > 1 else ''}"])]
    if not facts.is_whole:
        return [
            *rows,
            ("node", [f"{facts.first.host}; what other ranks see is not known, because MPI does not join them"]),
        ]
    return [*rows, ("ranks", _first_nodes(facts, [_node(facts, *node) for node in facts.by_node().items()]))]


def _first_nodes(facts: Facts, lines: list[str]) -> list[str]:
    more = len(facts.by_node()) - _MOST_NODES
    return lines if more <= 0 else [*lines[:_MOST_NODES], f"and {more} more nodes, which --json shows"]


def _node(facts: Facts, node: int, ranks: Sequence[int]) -> str:
    return f"node {node}, {facts.processes[ranks[0]].host}: {name_ranks(ranks)}"


def _mpi(facts: Facts) -> list[Row]:
    software, world = facts.first.software, facts.world
    size = f"a job of {world.size}" if world.size is not None else f"does not start: {world.error}"
    rows: list[Row] = [
        ("library", [world.name or "none"]),
        ("world", [size]),
        ("mpiexec", [str(software.mpiexec or "none")]),
    ]
    if software.on_path and software.on_path != software.mpiexec:
        rows.append(("on the path", [str(software.on_path)]))
    rows.append(("do they match", [match(facts)]))
    rows.append(("GPU memory", [_probe(facts)]))
    return rows


def _probe(facts: Facts) -> str:
    state, detail = facts.probe.state, facts.probe.detail
    if state == "not asked":
        return "staged through host memory; --probe-gpu-mpi tries whether MPI can send it"
    return f"{'sent by MPI' if state == 'works' else 'staged through host memory'}: {detail}"


def _gpus(facts: Facts) -> list[Row]:
    rows: list[Row] = []
    for node, ranks in list(facts.by_node().items())[:_MOST_NODES]:
        processes = [facts.processes[rank] for rank in ranks]
        rows += _gpus_of_node(f"node {node}" if len(facts.by_node()) > 1 else "found", ranks, processes)
    nccl = [f"{one.path} ({one.version or 'does not load'})" for one in facts.first.software.nccl]
    return [*rows, ("NCCL", nccl or ["none found"])]


def _gpus_of_node(label: str, ranks: Sequence[int], processes: Sequence[Process]) -> list[Row]:
    found = {gpu.uuid: gpu for process in processes for gpu in process.gpus.driver.found}
    if not found:
        return [(label, [f"none ({processes[0].gpus.driver.source})"])]
    driver = processes[0].gpus.driver
    rows: list[Row] = [
        (label, [f"{gpu.index}: {gpu.uuid} {gpu.name}, {size_text(gpu.memory_bytes)}" for gpu in found.values()]),
        ("driver", [f"{driver.driver} asked by {driver.source}"]),
        ("peer access", _peers(list(found.values()), driver.linked)),
    ]
    return [
        *rows,
        ("ranks see", describe([_sees(process) for process in processes], ranks)),
        ("own GPU", describe([_own(process) for process in processes], ranks)),
    ]


def _peers(gpus: Sequence[Gpu], is_known: bool) -> list[str]:
    if not is_known:
        return ["not known: nvidia-smi does not tell; pip install nvidia-ml-py"]
    if len(gpus) == 1:
        return ["one GPU"]
    return [f"{gpu.index} reads {_numbers(gpu.peers)}, NVLink to {_numbers(gpu.nvlinks)}" for gpu in gpus]


def _numbers(indexes: Iterable[int]) -> str:
    return format_list(indexes) or "none"


def _sees(process: Process) -> str:
    index = {gpu.uuid: str(gpu.index) for gpu in process.gpus.driver.found}
    return ",".join(index.get(uuid, uuid) for uuid in process.gpus.seen) or "none"


def _own(process: Process) -> str:
    return process.gpus.own_uuid or "none"


def _cpus(facts: Facts) -> list[Row]:
    machines = describe([_machine(process.cpus) for process in facts.processes])
    return [("machine", machines), ("bound to", describe([_binding(process) for process in facts.processes]))]


def _machine(cpus: Cpus) -> str:
    sockets = len({node.socket for node in cpus.nodes})
    quota = "" if cpus.quota is None else f", time of {cpus.quota:g} by the control group"
    text = f"{cpus.num_cpus} cpus, {sockets} socket{'s' if sockets > 1 else ''}, {len(cpus.nodes)} NUMA node"
    return f"{text}{'s' if len(cpus.nodes) > 1 else ''}{quota}"


def _binding(process: Process) -> str:
    cpus = process.cpus
    if len(cpus.allowed) == cpus.num_cpus:
        return "nothing, all cpus"
    return f"cpus {format_list(cpus.allowed)} of NUMA node {format_list(cpus.nodes_of(cpus.allowed))}"


def _limits(facts: Facts) -> list[Row]:
    def of_all(text: Callable[[Limits], str]) -> list[str]:
        return describe([text(process.limits) for process in facts.processes])

    return [
        ("/dev/shm", [_shm(facts.first.limits)]),
        ("memory", of_all(lambda one: f"{size_text(one.ram_bytes)}, control group: {_limit(one.memory_bytes)}")),
        ("open files", of_all(lambda one: "unlimited" if one.open_files is None else str(one.open_files))),
        ("locked memory", of_all(lambda one: _limit(one.locked_bytes))),
        ("stack", of_all(lambda one: _limit(one.stack_bytes))),
        ("address space", of_all(lambda one: _limit(one.address_bytes))),
    ]


def _shm(limits: Limits) -> str:
    shm = limits.shm
    return f"{size_text(shm.free_bytes)} free of {size_text(shm.total_bytes)}" if shm else "none"


def _limit(num_bytes: int | None) -> str:
    return "unlimited" if num_bytes is None else size_text(num_bytes)


def _python(facts: Facts) -> list[Row]:
    return [
        ("versions", describe([versions(process.software) for process in facts.processes])),
        ("program", describe([process.software.executable for process in facts.processes])),
        ("MPI wheels", [" ".join(map(" ".join, facts.first.software.mpi_wheels)) or "none"]),
        ("CuPy", [" ".join(map(" ".join, facts.first.software.cupy_wheels)) or "none"]),
    ]


def _print_entry(console: Console, head: Text, indent: int, lines: Sequence[str]) -> None:
    """Print a label with lines beside it, broken where the page ends, without blanks at the end of a line."""
    text = Text("\n").join(map(Text, lines)).wrap(console, console.width - indent, overflow="fold")
    for number, line in enumerate(text):
        line.rstrip()
        start = head if number == 0 else Text("")
        console.print(start.append(" " * (indent - start.cell_len)).append_text(line))


def _print_finding(console: Console, finding: Finding) -> None:
    head = Text("  ").append(f"{finding.level}:", style=_STYLES[finding.level])
    _print_entry(console, head, 11, [f"{finding.name}: {finding.says}"])
    _print_entry(console, Text("    cure:"), 11, [finding.cure])
