"""The frozen networks: their weights, device and batches."""
