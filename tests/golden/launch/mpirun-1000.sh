#!/bin/bash
# Made by `sparsecomm launch mpirun`.

set -e

exec mpiexec \
    -n 1000 \
    -ppn 1 \
    -bind-to none \
    sparsecomm spmm matrix.mtx --check
