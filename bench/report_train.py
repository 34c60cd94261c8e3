"""The report's training loop: the baseline of `bench.train`."""

import time

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

# The report's Model 4.
NUM_HEADS, NUM_LAYERS, FEEDFORWARD, DROPOUT = 16, 2, 512, 0.4
BATCH_SIZE, LR, WEIGHT_DECAY = 4, 3e-4, 3e-3


class ReportDataset(Dataset[tuple[Tensor, float]]):
    """One Python object for each sample."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        """`x` (N, T, D) float32, `y` (N,)."""
        self._samples = [(features.clone(), float(label)) for features, label in zip(x, y, strict=True)]

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> tuple[Tensor, float]:
        return self._samples[index]


class ReportHead(nn.Module):
    """Model 4: a Transformer encoder of two layers over the frames, mean pooling, an MLP of 256, 128 and 1 units."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(width, NUM_HEADS, FEEDFORWARD, DROPOUT, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, NUM_LAYERS)
        self.mlp = nn.Sequential(
            *(nn.Linear(width, 256), nn.ReLU(), nn.BatchNorm1d(256), nn.Dropout(0.5)),
            *(nn.Linear(256, 128), nn.ReLU(), nn.BatchNorm1d(128), nn.Dropout(0.4)),
            nn.Linear(128, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) to logits (B,)."""
        logits: Tensor = self.mlp(self.encoder(x).mean(dim=1)).squeeze(1)
        return logits


class ReportTraining:
    """Model 4 in float32 with batches of four and Adam."""

    def __init__(self, x: Tensor, y: Tensor, *, device: torch.device, num_steps: int) -> None:
        """`x` (N, T, D) float32, `y` (N,); `num_steps`: at most this many steps of an epoch are run."""
        self._loader = DataLoader(ReportDataset(x, y), batch_size=BATCH_SIZE, shuffle=True, drop_last=True)
        self._num_steps = min(num_steps, len(self._loader))
        self._device = device
        self._head = ReportHead(x.shape[2]).to(device)
        self._criterion = nn.BCEWithLogitsLoss(pos_weight=((y == 0).sum() / (y == 1).sum()).to(device))
        self._optimizer = torch.optim.Adam(self._head.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)

    @property
    def share(self) -> float:
        """The share of an epoch's steps that are run."""
        return self._num_steps / len(self._loader)

    def epoch(self) -> float:
        """Seconds of a whole epoch without validation, extrapolated from the steps that are run."""
        self._head.train()
        started = time.perf_counter()
        for step, (features, labels) in enumerate(self._loader):
            if step == self._num_steps:
                break
            self._optimizer.zero_grad()
            loss = self._criterion(self._head(features.to(self._device)), labels.float().to(self._device))
            loss.backward()
            self._optimizer.step()
            loss.item()  # the report sums the losses for its log
        return (time.perf_counter() - started) / self.share
