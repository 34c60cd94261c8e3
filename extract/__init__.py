"""Stage 1: videos to a cache of CLIP and SlowFast features. Knows videos and backbones, never the trainer."""
