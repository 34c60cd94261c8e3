"""A SlowFast in miniature for the length of a test."""

import pytest

from bench import networks
from haechi.extract.backbones import slowfast


def shrink_slowfast(patch: pytest.MonkeyPatch) -> None:
    """Replace slowfast_r50 by `bench.networks.SmallSlowFast`, on frames of side 32, until the patch is undone."""
    patch.setitem(slowfast.MODELS, "slowfast_r50", networks.SmallSlowFast)
    patch.setattr(slowfast.SlowFast, "transform", networks.SMALL_TRANSFORM)
