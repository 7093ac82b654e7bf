"""Matrices from files and generators, and the fingerprint that ties a plan to its matrix."""

from __future__ import annotations

from sparsecomm.io.matrix import read_matrix

__all__ = ["read_matrix"]
