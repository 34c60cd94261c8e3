"""What a head is trained on: the dataset of a cache, its split, its groups."""
