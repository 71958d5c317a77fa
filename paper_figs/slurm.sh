#!/bin/bash
# The figures on several hosts of a SLURM cluster, from the root of the repository:
#
#     sbatch paper_figs/slurm.sh            # all figures
#     sbatch paper_figs/slurm.sh figure_1   # one; arguments are those of python -m paper_figs
#
# The same program starts once per task. The tasks find each other through jax.distributed, each computes its share of
# every sweep on all of its cores (or its GPU), and adds what it finishes to the store, which must lie on a disk that
# they share. When the job is stopped by its time limit or a crash, submit it again: it goes on where it was.
# A sweep of your own needs a store and one line, jax.distributed.initialize(), before anything is computed; or none,
# where tasks need not end with the whole result: damjax.sweep(..., store=..., part=(i, n)), say in a job array.
#
#SBATCH --job-name=damjax
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1       # with GPUs: one task for each, and --gpus-per-task=1
#SBATCH --cpus-per-task=16
#SBATCH --time=01:00:00
#SBATCH --output=%x-%j.log

srun "${PYTHON:-.venv/bin/python}" -m paper_figs --distributed --store "${STORE:-figures.store}" "$@"
