"""A mark that skips a test where there is no GPU."""

import os

import pytest
import torch

NEEDS_CUDA = pytest.mark.skipif(
    not torch.cuda.is_available() and os.environ.get("HAECHI_EXPECT_CUDA") != "1",
    reason="no CUDA device; HAECHI_EXPECT_CUDA=1 makes this a failure",
)
