#!/bin/bash
#SBATCH --job-name=product
#SBATCH --qos=regular
#SBATCH --account=abc123
#SBATCH --time=00:30:00
#SBATCH --constraint=gpu
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --gpus-per-node=4
# Made by `sparsecomm launch perlmutter`.

set -e

export OMP_NUM_THREADS=16
export NUMBA_NUM_THREADS=16

exec srun \
    --nodes=1 \
    --ntasks=4 \
    --ntasks-per-node=4 \
    --cpus-per-task=32 \
    --cpu-bind=cores \
    --gpus-per-node=4 \
    --gpu-bind=none \
    --kill-on-bad-exit=1 \
    sparsecomm spmm matrix.mtx --check
