"""Tests run in several processes: each computes with one thread, its children too, unless the environment says else."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.browser import Driver

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):  # read when numpy and torch are imported
    os.environ.setdefault(name, "1")


@pytest.fixture(scope="session")
def driver() -> Iterator["Driver"]:
    """One browser for all pages that a process tries."""
    from tests import browser

    driver = browser.start()
    yield driver
    driver.quit()
