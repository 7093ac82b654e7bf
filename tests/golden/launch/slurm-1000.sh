#!/bin/bash
#SBATCH --job-name=product
#SBATCH --account=abc123
#SBATCH --time=00:30:00
#SBATCH --nodes=1000
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=1
# Made by `sparsecomm launch slurm`.

set -e

exec srun \
    --nodes=1000 \
    --ntasks=1000 \
    --ntasks-per-node=1 \
    --cpus-per-task=1 \
    --cpu-bind=cores \
    --kill-on-bad-exit=1 \
    sparsecomm spmm matrix.mtx --check
