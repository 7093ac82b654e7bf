#!/bin/bash
# Made by `sparsecomm launch mpirun`.

set -e

exec mpiexec \
    -n 8 \
    -ppn 1 \
    -bind-to none \
    sparsecomm spmm matrix.mtx --check
