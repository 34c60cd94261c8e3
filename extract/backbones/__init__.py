"""The frozen networks: their weights, their device, their batches."""
