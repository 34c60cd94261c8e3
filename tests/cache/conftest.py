"""Tests of what both format versions have in common run with shards of each."""

import pytest

from haechi.cache.schema import VERSIONS
from haechi.cache.writer import write_shard


@pytest.fixture(params=VERSIONS, ids=[f"version {version}" for version in VERSIONS])
def version(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Each version in turn: shards of it are written unless a test says otherwise."""
    assert write_shard.__kwdefaults__ is not None
    monkeypatch.setitem(write_shard.__kwdefaults__, "version", request.param)
    found: int = request.param
    return found
