"""`sparsecomm gnn`: train a graph neural network on the ranks of a job."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsecomm.errors import InputError
from sparsecomm.launch.in_job import find_topology, ranks_to_start, run_on_ranks
from sparsecomm.launch.options import Parsers, add_json, add_topology, print_json, reader_may_leave

if TYPE_CHECKING:
    from sparsecomm.apps.gnn.job import GnnOptions
    from sparsecomm.collectives.transport.base import Transport


def add_parser(commands: Parsers) -> argparse.ArgumentParser:
    parser = commands.add_parser("gnn", help="train a graph neural network in the job it is started in, or start ranks")
    parser.add_argument(
        "dataset",
        metavar="DATASET",
        help="DIR/cora (Planetoid), a folder of OGB or PyTorch Geometric, an .npz, an edge list with .npy beside it, "
        "or a graph directory",
    )
    parser.add_argument("--model", default="gcn", help="gcn, sage, gin or gat (gcn)")
    _add_settings(parser)
    add_topology(parser, required=False)
    parser.add_argument("-p", "--partition", metavar="METHOD", default="block", help="of the nodes (block)")
    parser.add_argument("-s", "--strategy", default="auto", help="auto, or one by name, see docs/strategies.md (auto)")
    parser.add_argument("-n", "--ranks", type=int, help="start this many ranks here (those of the topology, or 1)")
    parser.add_argument(
        "--transport", choices=["mpi", "local"], default="mpi", help="processes, or threads of one (mpi)"
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="do not train: cut the data for the ranks, each reads its part"
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
    parser.add_argument("--optimiser", help="adam, lion or sign-lion, whose ranks send one bit a weight (adam)")
    parser.add_argument("--learning-rate", type=float, help="of the optimiser (0.01, gat 0.005)")
    parser.add_argument("--weight-decay", type=float, help="of the optimiser (5e-4)")
    parser.add_argument("--patience", type=int, help="epochs without a lower validation loss; 0 for all (0, gat 100)")
    parser.add_argument("--dtype", choices=["float32", "float64"], help="of features and weights (float32)")
    parser.add_argument("--seed", type=int, help="of weights, dropout and drawn splits (0)")
    parser.add_argument(
        "--no-cache", dest="cache", action="store_const", const=False, help="fetch input features in every epoch"
    )
    parser.add_argument("--wire-dtype", dest="wire", help="round rows on their way to bfloat16, float16 or int8")
    parser.add_argument(
        "--amp", action="store_const", const=True, help="dense products in bfloat16, weights in float32"
    )
    parser.add_argument(
        "--stale", type=int, metavar="STEPS", help="train on rows of ghosts that are this old, fetched meanwhile (0)"
    )
    parser.add_argument(
        "--boundary-sample", type=float, metavar="P", help="fetch this share of the ghosts in a training step (1)"
    )
    parser.add_argument(
        "--recompute", action="store_const", const=True, help="keep inputs of layers only, compute the rest again"
    )


_SETTINGS = (
    "epochs", "layers", "hidden", "heads", "out_heads", "dropout", "optimiser", "learning_rate", "weight_decay",
    "patience", "dtype", "seed", "cache", "wire", "recompute", "amp", "stale", "boundary_sample",
)  # fmt: skip


def run(args: argparse.Namespace) -> int:
    if args.output is not None:
        return _cut(args)
    return run_on_ranks(args, _check, _work, _print)


def _cut(args: argparse.Namespace) -> int:
    """Write a graph directory, in this process."""
    from sparsecomm.apps.gnn.cut import cut_dataset
    from sparsecomm.launch.world import env_size
    from sparsecomm.topology import Topology

    if env_size(os.environ) is not None:
        raise InputError("-o works in one process; run it without a launcher, and give the ranks with -n or -t")
    num_ranks, settings = _check(args), _options(args).settings
    topology = Topology.parse(args.topology or f"uniform:1x{num_ranks}")
    report = cut_dataset(args.dataset, args.output, settings, topology, args.partition)
    if args.json:
        print_json(report)
    else:
        print(f"{report['dataset']['name']}: {report['dataset']['nodes']} nodes for {num_ranks} ranks in {args.output}")
    return 0


def _check(args: argparse.Namespace) -> int:
    """Refuse what can be refused before any rank is started, and return how many to start."""
    _check_options(args)
    return ranks_to_start(args)


def _check_options(args: argparse.Namespace) -> None:
    from sparsecomm.apps.gnn.job import check_options
    from sparsecomm.collectives.transport.waits import check_deadline
    from sparsecomm.partition.registry import check_method

    check_options(_options(args))
    check_method(args.partition)
    check_deadline(args.deadline or 0)


def _work(args: argparse.Namespace, transport: Transport) -> dict[str, Any]:
    from sparsecomm.apps.gnn.job import run_gnn
    from sparsecomm.launch.epochs import EpochLines

    topology, options = find_topology(args, transport, _check_options), _options(args)
    with EpochLines(topology, options.settings.epochs, enabled=transport.rank == 0) as lines:
        return run_gnn(options, topology, transport, on_epoch=lines)


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
