"""The cache format in code: how a shard is defined, written, read, shown and checked."""
