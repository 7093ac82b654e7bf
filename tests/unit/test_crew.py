"""Threads that share a product without the interpreter: they help, sleep, and are there again after a fork."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pytest
from scipy.sparse import csr_array, random_array

from sparsecomm.kernels import prepare
from sparsecomm.kernels.crew import Crew, crew_of
from sparsecomm.kernels.frame import AWAKE, CLAIM, DONE, LEADER
from sparsecomm.kernels.tiled import Tiled

THREADS = 3
Answers: TypeAlias = "multiprocessing.Queue[tuple[bool, list[bool]]]"


def matrix_of(rows: int, cols: int, density: float) -> csr_array[Any]:
    made: Any = random_array((rows, cols), density=density, format="csr", dtype=np.float32, rng=0)
    return csr_array(made)


def product() -> tuple[Tiled, np.ndarray, np.ndarray, np.ndarray]:
    """Return a product worth sharing, its X, memory for its result, and scipy's."""
    matrix = matrix_of(4000, 900, 0.05)
    x = np.random.default_rng(1).standard_normal((900, 32), dtype=np.float32)
    return Tiled(matrix, THREADS), x, np.empty((4000, 32), np.float32), matrix @ x


def happens(what: Callable[[], bool]) -> bool:
    """Say whether it does at all; a pass takes milliseconds."""
    end = time.monotonic() + 200
    while not what() and time.monotonic() < end:
        time.sleep(0.001)
    return what()


def test_helpers_take_parts_and_sleep_when_there_are_no_more() -> None:
    kernel, x, out, expected = product()
    mail = crew_of(THREADS)._mail
    taken = 0
    end = time.monotonic() + 200
    while not taken and time.monotonic() < end:
        kernel.multiply(x, out, 0, 4000)
        assert np.array_equal(out, expected)
        taken = mail[DONE]
    assert taken
    assert happens(lambda: mail[AWAKE] == 0)
    claim = int(mail[CLAIM])
    assert (claim >> 16) & 0xFFFF == claim & 0xFFFF
    kernel.multiply(x, out, 0, 4000)
    assert mail[CLAIM] >> 32 == (claim >> 32) + 1


def test_who_finds_another_product_shared_runs_alone() -> None:
    kernel, x, out, expected = product()
    mail = crew_of(THREADS)._mail
    claim, mail[LEADER] = mail[CLAIM], 1
    kernel.multiply(x, out, 0, 4000)
    mail[LEADER] = 0
    assert np.array_equal(out, expected)
    assert mail[CLAIM] == claim


def test_one_thread_has_no_helpers() -> None:
    assert Crew(1)._beds == []


def multiply_in_child(kernel: Tiled, x: np.ndarray, expected: np.ndarray, answers: Answers) -> None:
    out = np.empty_like(expected)
    kernel.multiply(x, out, 0, 4000)
    helpers = [thread.is_alive() for thread in threading.enumerate() if thread.name == "sparsecomm-product"]
    answers.put((np.array_equal(out, expected), helpers))


def test_a_forked_child_has_helpers_of_its_own() -> None:
    kernel, x, out, expected = product()
    kernel.multiply(x, out, 0, 4000)
    forked = multiprocessing.get_context("fork")
    answers: Answers = forked.Queue()
    child = forked.Process(target=multiply_in_child, args=(kernel, x, expected, answers))
    child.start()
    equal, helpers = answers.get(timeout=200)
    assert equal
    assert helpers == [True] * (THREADS - 1)
    child.join()


@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("width", [1, 24])
def test_arrays_that_are_not_contiguous_are_multiplied(index: type[np.signedinteger], width: int) -> None:
    matrix = matrix_of(300, 200, 0.1)
    apart = np.repeat(matrix.data, 2)[::2]
    other = csr_array((apart, matrix.indices.astype(index), matrix.indptr.astype(index)), matrix.shape)
    other.data = apart
    x = np.random.default_rng(1).standard_normal((400, width), dtype=np.float32)[::-2]
    assert np.array_equal(prepare(other, implementation="compiled").multiply(x), matrix @ x)
