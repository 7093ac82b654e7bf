"""What is asked for: a network, images, and the categories that are known to be right."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from sparsecomm.apps.sdnn.challenge import ChallengeFiles, find_files, read_images, read_truth
from sparsecomm.apps.sdnn.inputs import Drawn, Given, Inputs
from sparsecomm.apps.sdnn.network import FileNetwork, Network, RadixNetwork, check_bias
from sparsecomm.errors import InputError
from sparsecomm.io.generators import radixnet
from sparsecomm.typing import IntGlobal

# The challenge's fewest layers and its number of images.
LAYERS: Final = 120
IMAGES: Final = 60_000

_GENERATED: Final = re.compile(r"radixnet:(\d{1,9})(?::(\d{1,18}))?")


@dataclass(frozen=True, slots=True)
class SdnnOptions:
    """What to run and how; see `sparsecomm sdnn --help`."""

    network: str
    layers: int | None = None
    inputs: int | None = None
    mode: str = "data"
    method: str = "block"
    strategy: str = "auto"
    width: int = 64
    rebalance: int = 0
    memory: int | None = None
    scratch: Path | None = None
    bias: float | None = None
    neurons: int | None = None
    truth: Path | None = None
    categories: Path | None = None
    seed: int = 0
    check: bool = False
    repeat: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """A network and the images it looks at.

    Args:
        network: its layers.
        inputs: the images.
        truth: the images that should stay alive, ascending from 0; None where nobody knows.
    """

    network: Network
    inputs: Inputs
    truth: IntGlobal | None


def is_generated(spec: str) -> bool:
    """Say whether a network is generated, by its name."""
    return spec.partition(":")[0] == "radixnet"


def open_problem(options: SdnnOptions) -> Problem:
    """Find the network and read the images; layers are read when they are needed.

    Raises:
        InputError: files are missing or unusable, or a number is out of range.
    """
    for name, value in (("layers", options.layers), ("inputs", options.inputs)):
        if value is not None and value < 1:
            raise InputError(f"{name} {value} is not at least 1; give how many with --{name}")
    problem = _generated(options) if is_generated(options.network) else _from_files(options)
    last = problem.network.num_layers
    if options.rebalance >= last:
        raise InputError(f"--rebalance {options.rebalance} is not before the last of {last} layers; give a smaller one")
    return problem


def _from_files(options: SdnnOptions) -> Problem:
    files = find_files(Path(options.network), options.neurons)
    layers = options.layers or len(files.weights)
    bias = check_bias(options.bias, files.neurons)
    network = FileNetwork(files.folder, files.weights, files.neurons, layers, bias)
    inputs = _images(files, options)
    return Problem(network, inputs, _truth(options, files, layers, inputs))


def _generated(options: SdnnOptions) -> Problem:
    match = _GENERATED.fullmatch(options.network)
    if match is None:
        raise InputError(f"{options.network}: the form is radixnet:NEURONS[:SEED], for example radixnet:1024")
    neurons, seed = int(match[1]), int(match[2] or 0)
    try:
        radixnet(neurons, 0)
    except InputError as err:
        raise InputError(f"{options.network}: {err}") from err
    network = RadixNetwork(neurons, options.layers or LAYERS, check_bias(options.bias, neurons), seed)
    inputs = Drawn(options.inputs or IMAGES, neurons, options.seed)
    return Problem(network, inputs, read_truth(options.truth) if options.truth else None)


def _images(files: ChallengeFiles, options: SdnnOptions) -> Inputs:
    if files.images is None:
        return Drawn(options.inputs or IMAGES, files.neurons, options.seed)
    matrix = read_images(files.images, files.neurons)
    wanted = options.inputs or matrix.shape[0]
    if wanted > matrix.shape[0]:
        raise InputError(f"{files.images}: holds {matrix.shape[0]} images, not {wanted}; lower --inputs")
    return Given(files.images.name, matrix[:wanted])


def _truth(options: SdnnOptions, files: ChallengeFiles, layers: int, inputs: Inputs) -> IntGlobal | None:
    """Return the categories of this number of layers; those of drawn images nobody has written down."""
    path = options.truth or (files.truths.get(layers) if files.images else None)
    if path is None:
        return None
    truth = read_truth(path)
    return truth[: np.searchsorted(truth, inputs.count)]
