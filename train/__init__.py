"""Stage 2: from a feature cache to a trained head with its threshold. Does not use videos or backbones."""
