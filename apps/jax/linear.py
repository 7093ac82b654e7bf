"""Linear maps over the ranks as a primitive of JAX, each with its transpose.

A call is an ordered effect: a program runs its calls one after the other, in the order in which they were traced, and
leaves none out. All ranks trace the same program, so that their collectives meet. A plain `custom_vjp` may not contain
ordered effects, which is why there is a primitive.

JAX calls with numpy arrays over its own memory. Nothing of JAX may be used in a call: what it waits for could need the
thread that waits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import jax
import numpy as np
import numpy.typing as npt
from jax.experimental import io_callback
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from sparsecomm.errors import InputError

Dense = npt.NDArray[Any]


class Linear(NamedTuple):
    """A linear map of blocks of rows, equal to another one of the same functions.

    Args:
        forth: takes (num_in, width) rows and returns (num_out, width) new ones; collective.
        back: its transpose.
        num_in, num_out: rows of this rank.
    """

    forth: Callable[[Dense], Dense]
    back: Callable[[Dense], Dense]
    num_in: int
    num_out: int

    @property
    def transposed(self) -> Linear:
        return Linear(self.back, self.forth, self.num_out, self.num_in)

    def shape(self, given: Sequence[int]) -> tuple[int, ...]:
        """Return the shape of what comes out.

        Raises:
            InputError: another number of rows.
        """
        if not given or given[0] != self.num_in:
            raise InputError(f"this rank has {self.num_in} rows here, not an array of shape {tuple(given)}")
        return (self.num_out, *given[1:])

    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply the map to (num_in, ...) rows, which gives (num_out, ...).

        Raises:
            InputError: another number of rows, or a dtype that numpy does not have.
        """
        x = jax.numpy.asarray(x)
        if np.dtype(x.dtype).isbuiltin != 1:
            raise InputError(f"{x.dtype} rows cannot be exchanged; pass x.astype('float32')")
        return _linear.bind(x, linear=self)

    def on_host(self, x: Dense) -> Dense:
        made = self.forth(x.reshape(self.num_in, math.prod(x.shape[1:])))
        return made.reshape(self.shape(x.shape))


# The effect of an ordered callback; JAX shows it to the outside only so.
EFFECT: Final = next(iter(jax.make_jaxpr(lambda: io_callback(lambda: None, None, ordered=True))().effects))
_linear: Final = Primitive("sparsecomm")
_compiled: Final = jax.jit(lambda x, linear: _linear.bind(x, linear=linear), static_argnames="linear")


def _shape(x: Any, *, linear: Linear) -> tuple[Any, set[Any]]:
    return jax.core.ShapedArray(linear.shape(x.shape), x.dtype), {EFFECT}


def lowered(ctx: Any, act: Callable[..., Dense], *given: Any) -> Any:
    """Return what stands in a compiled program for a call of `act` with numpy arrays, in the order of the program."""
    token = ctx.tokens_in.get(EFFECT)
    made, token, _ = mlir.emit_python_callback(
        ctx,
        lambda *arrays: (act(*arrays),),
        token,
        given,
        ctx.avals_in,
        ctx.avals_out,
        has_side_effect=True,
        returns_token=True,
    )
    ctx.set_tokens_out(ctx.tokens_in.update_tokens(mlir.TokenSet({EFFECT: token})))
    return made


def _batch(args: Sequence[jax.Array], dims: Sequence[int], *, linear: Linear) -> tuple[jax.Array, int]:
    x = jax.numpy.moveaxis(args[0], dims[0], -1)
    return linear(x), x.ndim - 1


_linear.def_impl(_compiled)
_linear.def_effectful_abstract_eval(_shape)
mlir.register_lowering(_linear, lambda ctx, x, *, linear: lowered(ctx, linear.on_host, x))
ad.deflinear2(_linear, lambda grad, _, linear: [linear.transposed(grad)])
batching.primitive_batchers[_linear] = _batch
