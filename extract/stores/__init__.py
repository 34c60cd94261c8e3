"""Media in object stores: where they are, what the store knows of them, and their copies on this machine."""
