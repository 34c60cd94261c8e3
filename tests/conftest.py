"""Tests run in several processes: each computes with one thread, its children too, unless the environment says else."""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):  # read when numpy and torch are imported
    os.environ.setdefault(name, "1")
