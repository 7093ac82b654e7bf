"""What the threads of a crew run, compiled: they look for parts of a product, and hand them out; imported where needed.

All they know of each other is the mail, words that each have cache lines of their own. `CLAIM` is the number of a
product, how many of its parts were taken from the front, and where those end that were taken from the back. Who
replaces it by one with a part less has that part. So nobody waits for a thread that sleeps, or comes late.
"""

from __future__ import annotations

import platform
from typing import Any, Final

from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.extending import intrinsic

from sparsecomm.kernels.frame import (
    AWAKE,
    CLAIM,
    DONE,
    ENTRY,
    FRAME,
    KEEP,
    LEADER,
    LINE,
    OUT,
    OUT_STRIDE,
    PARTS,
    X_STRIDE,
    X,
)  # fmt: skip

_HALF: Final = 16
_ONES: Final = (1 << _HALF) - 1
_INT: Final = ir.IntType(64)
_OWN_LOOKS: Final = 64  # a few microseconds
_yield_core = types.ExternalFunction("sched_yield", types.intc())


@intrinsic
def _peek(typing: Any, words: Any, place: Any) -> Any:
    def write(context: Any, build: Any, signature: Any, values: Any) -> Any:
        return build.load_atomic(_at(context, build, signature, values), "acquire", 8)

    return types.int64(words, types.int64), write


@intrinsic
def _publish(typing: Any, words: Any, place: Any, value: Any) -> Any:
    def write(context: Any, build: Any, signature: Any, values: Any) -> Any:
        build.store_atomic(values[2], _at(context, build, signature, values), "release", 8)
        return context.get_dummy_value()

    return types.void(words, types.int64, types.int64), write


@intrinsic
def _replace(typing: Any, words: Any, place: Any, old: Any, new: Any) -> Any:
    """Replace a word if it is `old`; say whether it was."""

    def write(context: Any, build: Any, signature: Any, values: Any) -> Any:
        place = _at(context, build, signature, values)
        return build.extract_value(build.cmpxchg(place, values[2], values[3], "acq_rel", "acquire"), 1)

    return types.boolean(words, types.int64, types.int64, types.int64), write


@intrinsic
def _add(typing: Any, words: Any, place: Any, value: Any) -> Any:
    def write(context: Any, build: Any, signature: Any, values: Any) -> Any:
        return build.atomic_rmw("add", _at(context, build, signature, values), values[2], "acq_rel")

    return types.int64(words, types.int64, types.int64), write


@intrinsic
def _pause(typing: Any) -> Any:
    """Leave the core to its other thread for a moment, where the processor has a word for it."""

    def write(context: Any, build: Any, signature: Any, values: Any) -> Any:
        if platform.machine() in ("x86_64", "AMD64"):
            nothing = ir.FunctionType(ir.VoidType(), [])
            build.call(build.module.declare_intrinsic("llvm.x86.sse2.pause", (), nothing), [])
        return context.get_dummy_value()

    return types.void(), write


@njit(nogil=True, cache=True)
def _rest(looks: int) -> None:
    """Rest after so many looks; now and then let those have the core who have work for it."""
    if looks % _OWN_LOOKS:
        _pause()  # type: ignore[call-arg]
    else:
        _yield_core()


@intrinsic
def _run_part(typing: Any, frame: Any, part: Any) -> Any:
    """Call the entry in a part's line with the addresses of frame and line."""

    def write(context: Any, build: Any, signature: Any, values: Any) -> Any:
        frame, size = values[0], ir.Constant(_INT, 8 * LINE)
        table = _word(build, frame, PARTS)
        line = build.add(table, build.mul(values[1], size))
        kind = ir.FunctionType(ir.VoidType(), [_INT, _INT])
        build.call(build.inttoptr(_word(build, line, ENTRY), kind.as_pointer()), [frame, line])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), write


def _word(build: Any, address: Any, place: int) -> Any:
    return build.load(build.inttoptr(build.add(address, ir.Constant(_INT, 8 * place)), _INT.as_pointer()))


def _at(context: Any, build: Any, signature: Any, values: Any) -> Any:
    words = context.make_array(signature.args[0])(context, build, values[0])
    return build.gep(words.data, [values[1]])


@njit(nogil=True, cache=True)
def help_out(mail: Any, patience: int) -> None:
    """Take parts from the back of whatever is handed out, until there was nothing to take for `patience` looks."""
    _add(mail, AWAKE, 1)  # type: ignore[call-arg]
    idle = 0
    while idle < patience:
        claim = _peek(mail, CLAIM)
        front, back = (claim >> _HALF) & _ONES, claim & _ONES
        if front == back:
            idle += 1
            _rest(idle)
            continue
        frame = _peek(mail, FRAME)
        if _replace(mail, CLAIM, claim, claim - 1):
            _run_part(frame, back - 1)
            _add(mail, DONE, 1)
            idle = 0
    _add(mail, AWAKE, -1)


@njit(nogil=True, cache=True)
def lead(mail: Any, words: Any, parts: int, shared: bool, x: Any, out: Any, keep: bool) -> None:
    """Run all parts of a product, together with those who help out if it is `shared`.

    Whoever finds another product being shared runs all parts of his own alone. `words` is the frame, copied, since
    others may run the same product with other blocks.
    """
    own = words.copy()
    own[X], own[X_STRIDE] = x.ctypes.data, x.strides[0]
    own[OUT], own[OUT_STRIDE], own[KEEP] = out.ctypes.data, out.strides[0], keep
    frame = own.ctypes.data
    if shared and _replace(mail, LEADER, 0, 1):  # type: ignore[call-arg]
        _hand_out(mail, frame, parts)
        _publish(mail, LEADER, 0)
    else:
        for part in range(parts):
            _run_part(frame, part)  # type: ignore[call-arg]
    own[KEEP] = 0  # numba frees an array after its last use


@njit(nogil=True, cache=True)
def _hand_out(mail: Any, frame: int, parts: int) -> None:
    _publish(mail, DONE, 0)  # type: ignore[call-arg]
    _publish(mail, FRAME, frame)
    product = (_peek(mail, CLAIM) >> (2 * _HALF)) + 1
    _publish(mail, CLAIM, (product << (2 * _HALF)) | parts)
    own = 0
    while True:
        claim = _peek(mail, CLAIM)
        front, back = (claim >> _HALF) & _ONES, claim & _ONES
        if front == back:
            break
        if _replace(mail, CLAIM, claim, claim + (1 << _HALF)):
            _run_part(frame, front)
            own += 1
    looks = 0
    while _peek(mail, DONE) < parts - own:
        looks += 1
        _rest(looks)
