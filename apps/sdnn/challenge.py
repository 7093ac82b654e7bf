"""The files of the Graph Challenge in a folder: weights, images, and the categories they should have."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from scipy.sparse import csr_array

from sparsecomm.errors import InputError
from sparsecomm.io.csr import Matrix
from sparsecomm.io.matrix import read_matrix
from sparsecomm.io.text import parse_integer_lines, read_text
from sparsecomm.typing import IntGlobal

_ENDING: Final = r"\.(?:tsv|mtx)(?:\.gz)?"
_WEIGHTS: Final = re.compile(r"n(\d{1,9})-l(\d{1,9})" + _ENDING)
_IMAGES: Final = re.compile(r"sparse-images-(\d{1,9})(?:_subset)?" + _ENDING)
_TRUTH: Final = re.compile(r"neuron(\d{1,9})-l(\d{1,9})-categories(?:_subset)?" + _ENDING)


@dataclass(frozen=True, slots=True)
class ChallengeFiles:
    """What a folder has for one size of network.

    Args:
        folder: where it was found.
        neurons: of a layer.
        weights: files of layers 1, 2, ...
        images: the inputs, or None.
        truths: the true categories by number of layers.
    """

    folder: Path
    neurons: int
    weights: tuple[Path, ...]
    images: Path | None
    truths: dict[int, Path]


def find_files(folder: Path, neurons: int | None = None) -> ChallengeFiles:
    """Look for official files, tab separated or Matrix Market, in a folder and in its `neuronN` folders.

    Args:
        folder: where to look.
        neurons: the size wanted; None where the folder holds one size only.

    Raises:
        InputError: there are no weights, a layer is missing, or it is not clear which size is meant.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder, and no generated network; give one, or radixnet:NEURONS")
    paths = sorted(path for path in [*folder.glob("*"), *folder.glob("neuron*/*")] if path.is_file())
    sizes = {int(match[1]) for path in paths if (match := _WEIGHTS.fullmatch(path.name))}
    size = _one_size(folder, sizes, neurons)
    weights = _by_number(paths, _WEIGHTS, size)
    missing = next((number for number in range(1, max(weights) + 1) if number not in weights), None)
    if missing is not None:
        raise InputError(f"{folder}: layer {missing} of {max(weights)} is missing; add n{size}-l{missing}.tsv")
    images = [path for path in paths if (match := _IMAGES.fullmatch(path.name)) and int(match[1]) == size]
    ordered = tuple(weights[number] for number in sorted(weights))
    return ChallengeFiles(folder, size, ordered, images[0] if images else None, _by_number(paths, _TRUTH, size))


def _one_size(folder: Path, sizes: set[int], neurons: int | None) -> int:
    if not sizes:
        raise InputError(f"{folder}: holds no weights; expected n1024-l1.tsv, n1024-l2.tsv, ... or .mtx")
    if neurons is None and len(sizes) > 1:
        raise InputError(f"{folder}: holds networks of {sorted(sizes)} neurons; choose one with --neurons")
    size = min(sizes) if neurons is None else neurons
    if size not in sizes:
        raise InputError(f"{folder}: holds networks of {sorted(sizes)} neurons, not of {size}; leave --neurons out")
    return size


def _by_number(paths: list[Path], pattern: re.Pattern[str], neurons: int) -> dict[int, Path]:
    matches = ((pattern.fullmatch(path.name), path) for path in paths)
    return {int(match[2]): path for match, path in matches if match and int(match[1]) == neurons}


def read_images(path: Path, neurons: int) -> Matrix:
    """Return the images of a file, (images, neurons) float32; lines are `image pixel value`, counted from 1.

    Raises:
        InputError: the file is unusable, or has pixels that the network has no neuron for.
    """
    found = read_matrix(str(path), dtype=np.float32, one_based=True)
    if found.nnz and int(found.indices.max()) >= neurons:
        raise InputError(f"{path}: has pixel {int(found.indices.max()) + 1}; the network has {neurons} neurons")
    filled = np.flatnonzero(np.diff(found.indptr))
    # An edge list is read as square: what follows the last image is not one.
    square = ".mtx" not in path.suffixes
    count = int(filled[-1]) + 1 if square and filled.size else found.shape[0]
    return csr_array((found.data, found.indices, found.indptr[: count + 1]), shape=(count, neurons))


def read_truth(path: Path) -> IntGlobal:
    """Return the images that should stay alive, ascending, counted from 0.

    Raises:
        InputError: the file is unusable.
    """
    if ".mtx" in path.suffixes:
        return np.flatnonzero(np.diff(read_matrix(str(path)).indptr)).astype(np.int64)
    try:
        values, counts = parse_integer_lines(read_text(path))
    except OSError as err:
        raise InputError(f"{path} cannot be read: {err.strerror or err}; give the file of the true categories") from err
    except InputError as err:
        raise InputError(f"{path}: {err}") from err
    if (counts.size and counts.max() > 1) or (values < 1).any():
        raise InputError(f"{path}: expected one image a line, counted from 1")
    return np.unique(values) - 1
