"""The contract between the stages, in code: what a shard is, how it is written, read, shown and checked."""
