#!/bin/bash
#SBATCH --job-name=product
#SBATCH --partition=batch
#SBATCH --account=abc123
#SBATCH --time=00:30:00
#SBATCH --nodes=8
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=7
#SBATCH --gpus-per-node=8
# Made by `sparsecomm launch frontier`.

set -e

export OMP_NUM_THREADS=7
export NUMBA_NUM_THREADS=7
export SPARSECOMM_GPU_MAP=4,5,2,3,6,7,0,1

exec srun \
    --nodes=8 \
    --ntasks=64 \
    --ntasks-per-node=8 \
    --cpus-per-task=7 \
    --cpu-bind=cores \
    --gpus-per-node=8 \
    --gpu-bind=none \
    --kill-on-bad-exit=1 \
    sparsecomm spmm matrix.mtx --check
