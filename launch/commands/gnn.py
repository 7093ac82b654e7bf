"""`sparsecomm gnn`: train a graph neural network on the ranks of a job."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsecomm.errors import InputError
from sparsecomm.launch.in_job import check_ranks, check_started, run_in_job
from sparsecomm.launch.options import Parsers, add_json, add_topology, print_json, reader_may_leave

if TYPE_CHECKING:
    from sparsecomm.apps.gnn.job import GnnOptions
    from sparsecomm.collectives.transport.base import Transport
    from sparsecomm.topology import Topology


def add_parser(commands: Parsers) -> argparse.ArgumentParser:
    parser = commands.add_parser("gnn", help="train a graph neural network in the job it is started in, or start ranks")
    parser.add_argument(
        "dataset", metavar="DATASET", help="DIR/cora for Planetoid files, an .npz, or an edge list with .npy beside it"
    )
    parser.add_argument("--model", default="gcn", help="gcn, sage, gin or gat (gcn)")
    _add_settings(parser)
    add_topology(parser, required=False)
    parser.add_argument("-p", "--partition", metavar="METHOD", default="block", help="of the nodes (block)")
    parser.add_argument("-s", "--strategy", default="auto", help="auto (least predicted time) or one by name")
    parser.add_argument("-n", "--ranks", type=int, help="start this many ranks here (those of the topology, or 1)")
    parser.add_argument(
        "--transport", choices=["mpi", "local"], default="mpi", help="processes, or threads of one (mpi)"
    )
    parser.add_argument("--split", type=int, default=0, help="which of the masks of the data set (0)")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="write where training stands, as .npz")
    parser.add_argument("--checkpoint-every", type=int, default=10, metavar="EPOCHS", help="how often (10)")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint")
    parser.add_argument(
        "--deadline", type=float, metavar="SECONDS", help="end the job when a rank waits longer; 0 for never (300)"
    )
    add_json(parser)
    return parser


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """Add what is that of the paper of the model unless given."""
    parser.add_argument("--epochs", type=int, help="at most (200; gat 1000)")
    parser.add_argument("--layers", type=int, help="of the model (2)")
    parser.add_argument("--hidden", type=int, help="columns of a hidden layer, of every head for gat (of the paper)")
    parser.add_argument("--heads", type=int, help="attentions of hidden layers of gat (8)")
    parser.add_argument("--out-heads", type=int, help="attentions of the last layer of gat (1)")
    parser.add_argument(
        "--dropout", type=float, help="share of the inputs of a layer that training drops (0.5, gat 0.6)"
    )
    parser.add_argument("--learning-rate", type=float, help="of Adam (0.01, gat 0.005)")
    parser.add_argument("--weight-decay", type=float, help="of Adam (5e-4)")
    parser.add_argument("--patience", type=int, help="epochs without a lower validation loss; 0 for all (0, gat 100)")
    parser.add_argument("--dtype", choices=["float32", "float64"], help="of features and weights (float32)")
    parser.add_argument("--seed", type=int, help="of weights, dropout and drawn splits (0)")
    parser.add_argument(
        "--no-cache", dest="cache", action="store_const", const=False, help="fetch input features in every epoch"
    )


_SETTINGS = (
    "epochs", "layers", "hidden", "heads", "out_heads", "dropout", "learning_rate", "weight_decay", "patience", "dtype",
    "seed", "cache",
)  # fmt: skip


def run(args: argparse.Namespace) -> int:
    from sparsecomm.launch.world import env_size

    if env_size(os.environ) is not None:
        return run_in_job(args, _work, _print)
    num_ranks = _check(args)
    if num_ranks == 1 or args.transport == "local":
        from sparsecomm.collectives.transport.local import run_local

        return _print(run_local(num_ranks, lambda transport: _work(args, transport))[0], args)
    from sparsecomm.launch.start import start_ranks

    return start_ranks(num_ranks, [sys.executable, "-m", "sparsecomm", *args.argv])


def _check(args: argparse.Namespace) -> int:
    """Refuse what can be refused before any rank is started, and return how many to start."""
    from sparsecomm.topology import Topology

    _check_options(args)
    topology = Topology.parse(args.topology) if args.topology else None
    num_ranks = int(args.ranks) if args.ranks is not None else topology.num_ranks if topology else 1
    if num_ranks < 1:
        raise InputError(f"{num_ranks} ranks cannot be started; give at least 1 with -n")
    if topology is not None:
        check_ranks(topology, num_ranks)
    return num_ranks


def _check_options(args: argparse.Namespace) -> None:
    from sparsecomm.apps.gnn.job import check_options
    from sparsecomm.collectives.transport.waits import check_deadline
    from sparsecomm.partition.registry import check_method

    check_options(_options(args))
    check_method(args.partition)
    check_deadline(args.deadline or 0)


def _work(args: argparse.Namespace, transport: Transport) -> dict[str, Any]:
    from sparsecomm.apps.gnn.job import run_gnn
    from sparsecomm.apps.job import on_all
    from sparsecomm.launch.epochs import EpochLines

    on_all(transport, lambda: _check_options(args))
    on_all(transport, lambda: check_started(args, transport.num_ranks))
    topology = _topology(args, transport)
    on_all(transport, lambda: check_ranks(topology, transport.num_ranks))
    with EpochLines(topology, enabled=transport.rank == 0) as lines:
        return run_gnn(_options(args), topology, transport, on_epoch=lines)


def _topology(args: argparse.Namespace, transport: Transport) -> Topology:
    from sparsecomm.apps.job import on_all
    from sparsecomm.collectives.transport.open import detect_topology
    from sparsecomm.topology import Topology

    if args.topology:
        return on_all(transport, lambda: Topology.parse(args.topology))
    return detect_topology(transport)


def _options(args: argparse.Namespace) -> GnnOptions:
    from sparsecomm.apps.gnn.job import GnnOptions
    from sparsecomm.apps.gnn.settings import settings_of

    return GnnOptions(
        dataset=args.dataset,
        settings=settings_of(args.model, **{name: getattr(args, name) for name in _SETTINGS}),
        method=args.partition,
        strategy=args.strategy,
        split=args.split,
        checkpoint=args.checkpoint,
        checkpoint_every=args.checkpoint_every,
        resume=args.resume,
    )


def _print(report: dict[str, Any], args: argparse.Namespace) -> int:
    with reader_may_leave():  # the other ranks still wait for this one
        if args.json:
            print_json(report)
        else:
            from sparsecomm.launch.epochs import show_gnn

            show_gnn(report)
    return 0
