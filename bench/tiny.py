"""`python -m bench.tiny COMMAND …` runs `haechi COMMAND …` with a SlowFast in miniature (`bench.networks`).

A CLIP in miniature is open_clip's own, chosen by the name that `networks.write_clip_config` returns.
"""

import sys

if __name__ == "__main__":  # decoding processes load this file too, and need none of it
    import haechi.cli
    from bench.networks import shrink_slowfast

    shrink_slowfast()
    haechi.cli.main(sys.argv[1:])
