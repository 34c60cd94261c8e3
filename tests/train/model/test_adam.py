"""Tests for the optimizer: the same numbers as torch's, without its compiler."""

import subprocess
import sys

import torch
from torch import nn

from haechi.train.model.adam import Adam

# In a new interpreter: other tests may have imported the compiler before.
CODE = """
import sys, torch
from haechi.train.model.adam import Adam
layer = torch.nn.Linear(3, 1)
optimizer = Adam(layer.parameters(), fused=True)
layer(torch.ones(2, 3)).sum().backward()
optimizer.step()
optimizer.zero_grad()
assert 'torch._dynamo' not in sys.modules
"""


def train(kind: type[torch.optim.Adam]) -> list[torch.Tensor]:
    """Weights after some steps with a schedule."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 1))
    optimizer = kind(model.parameters(), lr=1e-2, weight_decay=3e-3, fused=True)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=20)
    for _ in range(20):
        optimizer.zero_grad()
        model(torch.randn(6, 4)).sum().backward()
        optimizer.step()
        scheduler.step()
    return list(model.state_dict().values())


def test_steps_are_those_of_torch() -> None:
    assert all(map(torch.equal, train(Adam), train(torch.optim.Adam)))


def test_the_compiler_is_not_imported() -> None:
    subprocess.run([sys.executable, "-c", CODE], check=True, timeout=60)
