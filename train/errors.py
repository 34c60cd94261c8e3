"""The error of stage 2."""

from haechi.cache.errors import HaechiError


class TrainError(HaechiError):
    """Settings, data or a run that training cannot work with."""
