"""Stage 2: a feature cache to a trained head with its threshold. Knows caches and heads, no video and no backbone."""
