"""What a trained head is worth on videos that it was not trained on: `haechi evaluate`."""
