"""Solve A x = b by conjugate gradients, the 5-point Laplacian of a 24 x 24 grid spread over the ranks of a job.

mpiexec -n 4 python docs/examples/cg.py
"""

import numpy as np
from scipy.sparse.linalg import cg as scipy_cg
from scipy.sparse.linalg import eigsh

import sparsecomm
from sparsecomm.apps.solvers import cg, norm
from sparsecomm.collectives.transport.open import detect_topology, open_transport
from sparsecomm.layout import Layouts

matrix = sparsecomm.read_matrix("grid2d:24")
whole_b = np.random.default_rng(0).standard_normal(matrix.shape[0])

transport = open_transport()
layout = sparsecomm.Layout.block(matrix.shape[0], transport.num_ranks)
own = slice(*layout.offsets[transport.rank : transport.rank + 2])
topology = detect_topology(transport)

with sparsecomm.DistMatrix.from_rows(matrix[own], Layouts(layout, layout), topology, transport, width=1) as A:
    x, info = cg(A, whole_b[own], rtol=1e-10)
    residual = norm(whole_b[own] - A @ x, transport)
    whole_x = A.collect(x)
    largest = eigsh(A.as_linear_operator(), k=1, v0=whole_b, return_eigenvectors=False)[0]

if transport.rank == 0:
    expected, _ = scipy_cg(matrix, whole_b, rtol=1e-10)
    error = np.abs(whole_x - expected).max() / np.abs(expected).max()
    assert info == 0
    assert error < 1e-8
    print(f"cg on {transport.num_ranks} ranks: residual {residual:.1e}, difference to scipy {error:.1e}")
    print(f"largest eigenvalue by eigsh: {largest:.6f}")
transport.close()
