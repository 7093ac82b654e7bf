"""`sparsecomm launch`: the command or the job script that starts ranks on a machine."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sparsecomm.errors import InputError
from sparsecomm.launch.options import Parsers

if TYPE_CHECKING:
    from sparsecomm.launch.job.make import Asked
    from sparsecomm.launch.job.spec import JobSpec


def add_parser(commands: Parsers) -> argparse.ArgumentParser:
    from sparsecomm.launch.job.sites import SITES

    text = "print, run, or write as a job script what starts a command on all ranks of a machine"
    parser = commands.add_parser("launch", help=text)
    presets = parser.add_subparsers(metavar="PRESET", required=True, title="presets")
    options = _options()
    for name, site in SITES.items():
        preset = presets.add_parser(name, help=site.title, description=f"{text}: {site.title}", parents=[options])
        preset.usage = "%(prog)s --nodes N [options] -- COMMAND [ARGUMENT ...]"
        preset.set_defaults(preset=name)
    return parser


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("-N", "--nodes", type=int, required=True, metavar="N", help="nodes")
    parser.add_argument("--ranks-per-node", type=int, metavar="G", help="ranks on each (the preset's: one a GPU)")
    parser.add_argument("--gpus-per-node", type=int, metavar="G", help="GPUs on each (the preset's)")
    parser.add_argument(
        "--cores-per-rank",
        type=int,
        metavar="C",
        help="of each rank (an equal share of a node; 1 where the preset knows none)",
    )
    parser.add_argument("--bind", choices=["cores", "none"], default="cores", help="bind ranks to their cores (cores)")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="for every rank; repeat it")
    parser.add_argument("--time", metavar="T", help="limit: minutes, HH:MM:SS or D-HH:MM:SS")
    parser.add_argument("--account", metavar="A", help="who pays: account, project or bank")
    parser.add_argument("--queue", "--partition", metavar="Q", help="queue, partition or QOS (the preset's)")
    parser.add_argument("--name", metavar="J", help="of the job")
    parser.add_argument("--launcher", metavar="L", help="hydra, openmpi, srun, jsrun, flux or pals (the preset's)")
    parser.add_argument("--scheduler", metavar="S", help="none, slurm, lsf, flux or pbs (the preset's)")
    parser.add_argument("--hostfile", metavar="FILE", help="nodes, for mpiexec without a scheduler")
    parser.add_argument("--option", action="append", default=[], metavar="WORD", help="one more word for the launcher")
    parser.add_argument("--directive", action="append", default=[], metavar="TEXT", help="one more for the scheduler")
    parser.add_argument("--module", action="append", default=[], metavar="M", help="a script loads it; repeat it")
    parser.add_argument("--venv", metavar="DIR", help="a script activates it")
    act = parser.add_mutually_exclusive_group()
    act.add_argument("--run", dest="start", action="store_true", help="run the command instead of printing it")
    act.add_argument("-o", "--output", metavar="FILE", help="write a job script; - prints it")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="of every rank, after --")
    return parser


def run(args: argparse.Namespace) -> int:
    from sparsecomm.launch.job.make import make_spec
    from sparsecomm.launch.job.quoting import join_words

    asked = _ask(args)
    spec = make_spec(asked)
    if spec.cores_per_rank is None and spec.scheduler != "none":
        print("sparsecomm: every rank gets 1 core, the preset knows no nodes; give --cores-per-rank", file=sys.stderr)
    if args.output is not None:
        return _write(asked, spec, args.output)
    words = _command(args, spec)
    if not args.start:
        print(join_words(words))
        return 0
    from sparsecomm.launch.job.run import run_command

    return run_command(spec, words)


def _ask(args: argparse.Namespace) -> Asked:
    from sparsecomm.launch.job.make import Asked
    from sparsecomm.launch.job.quoting import parse_variable
    from sparsecomm.launch.job.spec import parse_time

    return Asked(
        preset=args.preset,
        num_nodes=args.nodes,
        command=args.command[1:] if args.command[:1] == ["--"] else args.command,
        launcher=args.launcher,
        scheduler=args.scheduler,
        ranks_per_node=args.ranks_per_node,
        gpus_per_node=args.gpus_per_node,
        cores_per_rank=args.cores_per_rank,
        bind=args.bind == "cores",
        environment=dict(map(parse_variable, args.env)),
        seconds=None if args.time is None else parse_time(args.time),
        account=args.account,
        queue=args.queue,
        name=args.name,
        directives=args.directive,
        options=args.option,
        hostfile=args.hostfile,
        modules=args.module,
        venv=args.venv,
    )


def _command(args: argparse.Namespace, spec: JobSpec) -> list[str]:
    from sparsecomm.launch.job.commands import launch_command

    if args.directive and spec.launcher not in ("srun", "flux"):
        raise InputError(
            f"--directive is for a scheduler, and {spec.launcher} is none; write a job script with -o FILE"
        )
    return [word for group in launch_command(spec, in_script=False) for word in group]


def _write(asked: Asked, spec: JobSpec, output: str) -> int:
    from sparsecomm.launch.job.make import missing
    from sparsecomm.launch.job.quoting import join_words
    from sparsecomm.launch.job.script import SUBMIT, job_script, write_script

    text = job_script(spec)
    if wanted := missing(asked):
        print(f"sparsecomm: {asked.preset} refuses jobs without {' and '.join(wanted)}", file=sys.stderr)
    if output == "-":
        sys.stdout.write(text)
        return 0
    write_script(Path(output), text)
    print(f"wrote {output}; submit it with: {SUBMIT[spec.scheduler]} {join_words([output])}")
    return 0
