"""Sparse exchanges inside JAX: functions that can be compiled and differentiated, over the ranks of a job."""

from __future__ import annotations

from sparsecomm.apps.ghost_exchange import GhostExchange
from sparsecomm.apps.jax.functions import gather, scatter, spmm, sum_gradients
from sparsecomm.apps.jax.requests import combine, fetch

__all__ = ["GhostExchange", "combine", "fetch", "gather", "scatter", "spmm", "sum_gradients"]
