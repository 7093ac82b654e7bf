#!/bin/bash
#BSUB -J product
#BSUB -P abc123
#BSUB -W 0:30
#BSUB -nnodes 1000
#BSUB -o product.%J.out
# Made by `sparsecomm launch summit`.

set -e

export PAMI_ENABLE_STRIPING=1
export PAMI_IBV_ADAPTER_AFFINITY=1
export PAMI_IBV_DEVICE_NAME=mlx5_0:1,mlx5_3:1
export PAMI_IBV_DEVICE_NAME_1=mlx5_3:1,mlx5_0:1
export OMP_NUM_THREADS=7
export NUMBA_NUM_THREADS=7

exec jsrun \
    -n6000 \
    -r6 -a1 -g1 -c7 \
    -d packed \
    -b packed:7 \
    --smpiargs=-gpu \
    sparsecomm spmm matrix.mtx --check
