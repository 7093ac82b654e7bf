"""Rows for whoever asks, with other requests at every call, as functions of JAX arrays, each the other's transpose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import jax
import numpy as np
import numpy.typing as npt
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from sparsecomm.apps.jax.linear import EFFECT, Dense, lowered
from sparsecomm.collectives.dispatch import Dispatch
from sparsecomm.errors import InputError


def fetch(dispatch: Dispatch, x: jax.Array, ids: jax.Array) -> jax.Array:
    """Return the row of every request; its transpose combines.

    A row that is asked for more than once comes once. Requests are planned where those of some rank differ from the
    last ones of `dispatch`, so that a backward pass plans nothing.

    Args:
        dispatch: over the ranks.
        x: (num_own, width) rows that this rank owns, of the dtype of `dispatch`.
        ids: integers of any shape, global rows; -1 asks for none. The shape may differ from rank to rank.

    Returns:
        (*ids.shape, width), zeros where an id is -1.

    Raises:
        InputError: `x` or `ids` does not fit. Rows that do not exist are found when the program runs; JAX then raises
            on all ranks.

    Note: Collective over comm.
    """
    return Asked(_checked(dispatch), back=False)(x, ids)


def combine(dispatch: Dispatch, answers: jax.Array, ids: jax.Array, weights: jax.Array | None = None) -> jax.Array:
    """Return for every own row the sum of weight times answer over all requests for it; its transpose fetches.

    Args:
        dispatch: over the ranks.
        answers: (*ids.shape, width), of the dtype of `dispatch`.
        ids: as in `fetch`; answers to -1 are left out.
        weights: as `ids`, may learn; None is 1.

    Returns:
        (num_own, width) sums.

    Raises:
        InputError: an argument does not fit. Rows that do not exist are found when the program runs; JAX then raises
            on all ranks.

    Note: Collective over comm.
    """
    weighted = answers if weights is None else answers * weights[..., None]
    return Asked(_checked(dispatch), back=True)(weighted, ids)


def _checked(dispatch: Dispatch) -> Dispatch:
    if not isinstance(dispatch, Dispatch):
        raise InputError(f"a Dispatch is needed, not a {type(dispatch).__name__}")
    return dispatch


class Asked(NamedTuple):
    """The map from own rows to requests, or, `back`, its transpose: equal to another one of the same dispatch."""

    dispatch: Dispatch
    back: bool

    @property
    def transposed(self) -> Asked:
        return Asked(self.dispatch, not self.back)

    def shape(self, ids: Sequence[int], *, back: bool) -> tuple[int, ...]:
        """Return the shape of the rows of this rank (`back`) or of those of its requests."""
        return (self.dispatch.num_own, self.dispatch.width) if back else (*ids, self.dispatch.width)

    def __call__(self, rows: jax.Array, ids: jax.Array) -> jax.Array:
        """Apply the map.

        Raises:
            InputError: what is given does not fit the requests or the dispatch.
        """
        rows, ids = jax.numpy.asarray(rows), jax.numpy.asarray(ids)
        if not jax.numpy.issubdtype(ids.dtype, jax.numpy.integer):
            raise InputError(f"requests are integers, not {ids.dtype}; pass ids.astype('int32')")
        expected, dtype = self.shape(ids.shape, back=not self.back), self.dispatch.dtype
        if rows.shape != expected or rows.dtype != dtype:
            wide = dtype.itemsize > 4 and not jax.config.jax_enable_x64
            cure = "; without jax_enable_x64 JAX has no numbers of 64 bits" if wide else ""
            noun = "answers" if self.back else "own rows"
            raise InputError(f"the {noun} must be {dtype} {expected}, not {rows.dtype} {rows.shape}{cure}")
        return _asked.bind(rows, ids, asked=self)

    def on_host(self, rows: Dense, ids: npt.NDArray[Any]) -> Dense:
        wanted = ids.ravel().astype(np.int64)
        is_asked, flat = wanted != -1, rows.reshape(-1, self.dispatch.width)
        self.dispatch.ask(wanted[is_asked])
        if self.back:
            return self.dispatch.combine(flat[is_asked])
        found = np.zeros((wanted.size, self.dispatch.width), dtype=rows.dtype)
        found[is_asked] = self.dispatch.fetch_again(flat)
        return found.reshape(self.shape(ids.shape, back=False))


_asked: Final = Primitive("sparsecomm_asked")
_compiled: Final = jax.jit(lambda rows, ids, asked: _asked.bind(rows, ids, asked=asked), static_argnames="asked")


def _shape(rows: Any, ids: Any, *, asked: Asked) -> tuple[Any, set[Any]]:
    return jax.core.ShapedArray(asked.shape(ids.shape, back=asked.back), rows.dtype), {EFFECT}


def _jvp(primals: Sequence[Any], tangents: Sequence[Any], *, asked: Asked) -> tuple[Any, Any]:
    (rows, ids), (change, _) = primals, tangents
    made = asked(rows, ids)
    return made, ad.Zero.from_primal_value(made) if type(change) is ad.Zero else asked(change, ids)


def _transpose(grad: Any, rows: Any, ids: Any, *, asked: Asked) -> list[Any]:
    return [ad.Zero(rows.aval) if type(grad) is ad.Zero else asked.transposed(grad, ids), None]


def _batch(args: Sequence[jax.Array], dims: Sequence[int | None], *, asked: Asked) -> tuple[jax.Array, int]:
    """Ask for a batch of requests of the same rows at once, for other batches one after the other."""
    size = next(arg.shape[dim] for arg, dim in zip(args, dims, strict=True) if dim is not None)
    rows, ids = (arg if dim is None else jax.numpy.moveaxis(arg, dim, 0) for arg, dim in zip(args, dims, strict=True))
    if dims[0] is None and not asked.back:
        return asked(rows, ids), 0
    whole = [
        jax.numpy.broadcast_to(arg, (size, *arg.shape)) if dim is None else arg
        for arg, dim in zip((rows, ids), dims, strict=True)
    ]
    return jax.lax.map(lambda pair: asked(*pair), tuple(whole)), 0


_asked.def_impl(_compiled)
_asked.def_effectful_abstract_eval(_shape)
mlir.register_lowering(_asked, lambda ctx, rows, ids, *, asked: lowered(ctx, asked.on_host, rows, ids))
ad.primitive_jvps[_asked] = _jvp
ad.primitive_transposes[_asked] = _transpose
batching.primitive_batchers[_asked] = _batch
