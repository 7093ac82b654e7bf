"""What a job is: how many ranks where, with what, under which launcher."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from sparsecomm.errors import InputError
from sparsecomm.launch.job.quoting import check_plain_word, check_word

MAX_NODES: Final = 1 << 20
MAX_PER_NODE: Final = 1 << 12

# Every launcher with the scheduler whose jobs it runs in; an empty one runs under any.
LAUNCHERS: Final = {"hydra": "", "openmpi": "", "srun": "slurm", "jsrun": "lsf", "flux": "flux", "pals": "pbs"}
SCHEDULERS: Final = ("none", "slurm", "lsf", "flux", "pbs")


@dataclass(frozen=True, slots=True)
class JobSpec:
    """A job.

    Args:
        title: the preset it was made from, for comments.
        launcher: one of LAUNCHERS.
        scheduler: one of SCHEDULERS.
        num_nodes: nodes.
        ranks_per_node: ranks on each.
        gpus_per_node: GPUs on each; 0 asks for none.
        cores_per_rank: hardware threads of each rank, or None to leave it to the launcher.
        bind: whether ranks are bound to their cores.
        cpu_masks: cores of every rank of a node, as Slurm writes masks, where a site needs them.
        environment: names and values.
        seconds: time limit, or None.
        account: who pays, or None.
        queue: partition or queue, or None.
        queue_option: what Slurm calls it here: `partition` or `qos`.
        name: of the job, or None.
        resources: what a site adds to PBS's `select`.
        directives: lines that a site or the user adds for the scheduler.
        options: words that the user adds for the launcher.
        hostfile: nodes for hydra and Open MPI, or None.
        modules: loaded by a script.
        venv: activated by a script, or None.
        command: what every rank runs.
    """

    title: str
    launcher: str
    scheduler: str
    num_nodes: int
    ranks_per_node: int
    gpus_per_node: int = 0
    cores_per_rank: int | None = None
    bind: bool = True
    cpu_masks: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    seconds: int | None = None
    account: str | None = None
    queue: str | None = None
    queue_option: str = "partition"
    name: str | None = None
    resources: str = ""
    directives: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    hostfile: str | None = None
    modules: tuple[str, ...] = ()
    venv: str | None = None
    command: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_count("--nodes", self.num_nodes, 1, MAX_NODES)
        _check_count("--ranks-per-node", self.ranks_per_node, 1, MAX_PER_NODE)
        _check_count("--gpus-per-node", self.gpus_per_node, 0, MAX_PER_NODE)
        if self.cores_per_rank is not None:
            _check_count("--cores-per-rank", self.cores_per_rank, 1, MAX_PER_NODE)
        _check_pair(self.launcher, self.scheduler)
        _check_command(self.command)
        for option in self.options:
            check_word(option, "--option")
            if option == ":":
                raise InputError("--option ':' would begin a second command for the launcher")
        if self.hostfile is not None:
            check_plain_word(self.hostfile, "--hostfile")
            if self.launcher not in ("hydra", "openmpi"):
                raise InputError(f"--hostfile is for mpiexec; {self.launcher} gets its nodes from the scheduler")

    @property
    def num_ranks(self) -> int:
        return self.num_nodes * self.ranks_per_node


def parse_time(text: str) -> int:
    """Return the seconds of `MINUTES`, `HH:MM:SS` or `D-HH:MM:SS`.

    Raises:
        InputError: it has another form; `HH:MM` is hours to LSF and minutes to Slurm, and so refused.
    """
    if re.fullmatch(r"[0-9]{1,7}", text) and int(text):
        return 60 * int(text)
    found = re.fullmatch(r"(?:([0-9]{1,3})-)?([0-9]{1,4}):([0-5][0-9]):([0-5][0-9])", text)
    seconds = 0
    if found:
        days, hours, minutes, rest = (int(part or 0) for part in found.groups())
        seconds = ((24 * days + hours) * 60 + minutes) * 60 + rest
    if not seconds:
        raise InputError(f"--time {text!r} is not a time; give minutes (90), HH:MM:SS or D-HH:MM:SS")
    return seconds


def clock(seconds: int) -> str:
    """Return a time as HH:MM:SS, with as many hours as it takes."""
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _check_count(option: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise InputError(f"{option} {value} is not between {least} and {most}")


def _check_pair(launcher: str, scheduler: str) -> None:
    if launcher not in LAUNCHERS:
        raise InputError(f"no launcher {launcher!r}; give one of {', '.join(LAUNCHERS)}")
    if scheduler not in SCHEDULERS:
        raise InputError(f"no scheduler {scheduler!r}; give one of {', '.join(SCHEDULERS)}")
    if LAUNCHERS[launcher] not in ("", scheduler):
        raise InputError(
            f"{launcher} runs in jobs of {LAUNCHERS[launcher]}, not of {scheduler}; "
            f"give --scheduler {LAUNCHERS[launcher]} or another --launcher"
        )


def _check_command(command: tuple[str, ...]) -> None:
    if not command:
        raise InputError("nothing to start; give the command after --, as in: -- sparsecomm spmm rmat:16 --check")
    check_plain_word(command[0], "command")
    for word in command:
        check_word(word, "command")
        if word == ":":
            raise InputError("the command has the word ':', with which launchers begin a second command")
