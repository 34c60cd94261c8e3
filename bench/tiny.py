"""`python -m bench.tiny COMMAND …` runs `haechi COMMAND …` with a tiny SlowFast network (`bench.networks`).

For a tiny CLIP, pass the model name that `networks.write_clip_config` returns as --clip-model.
"""

import sys

if __name__ == "__main__":  # decoding processes import this file too, and must not run it
    import haechi.cli
    from bench.networks import shrink_slowfast

    shrink_slowfast()
    haechi.cli.main(sys.argv[1:])
