"""The class that runs each model. To add a backbone, write its class in a file of this folder and add one line here.

A class is given as MODULE:CLASS and follows a protocol of `haechi.extract.backbones.roles`. This file loads no torch.
"""

from collections import ChainMap

from haechi.cache.schema import NO_MODEL

ANY_OTHER = "*"

# Names for --clip-model. open_clip has hundreds of models, so it runs every name that is not listed.
IMAGE_MODELS = {
    ANY_OTHER: "haechi.extract.backbones.openclip:OpenClip",
}

# Names for --slowfast-model.
MOTION_MODELS = {
    "slowfast_r50": "haechi.extract.backbones.slowfast:SlowFast",
    "slowfast_r101": "haechi.extract.backbones.slowfast:SlowFast",
}

# Choices for --slowfast-model: a name, or none for CLIP alone.
MOTION_CHOICES = ChainMap({NO_MODEL: ""}, MOTION_MODELS)
