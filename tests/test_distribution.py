"""What `pip install` brings: one import root, all rooms, and the same wheel whichever way it is built."""

import importlib.util
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("cache", "extract", "predict", "train")

pytestmark = pytest.mark.skipif(importlib.util.find_spec("setuptools") is None, reason="setuptools is not installed")


def build(source: Path, out: Path, kind: str) -> Path:
    """Build with the backend that pyproject.toml names; `kind`: wheel or sdist."""
    out.mkdir(exist_ok=True)
    program = f"from setuptools import build_meta; print(build_meta.build_{kind}({str(out)!r}))"
    done = subprocess.run([sys.executable, "-c", program], cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheel of a checkout, and that of its source distribution."""
    folder = tmp_path_factory.mktemp("distribution")
    checkout = folder / "checkout"
    checkout.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("src", *PACKAGES):
        shutil.copytree(ROOT / name, checkout / name, symlinks=True, ignore=ignored)
    with tarfile.open(build(checkout, folder / "sdist", "sdist")) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    return {"checkout": build(checkout, folder / "a", "wheel"), "sdist": build(unpacked, folder / "b", "wheel")}


def contents(wheel: Path) -> dict[str, bytes]:
    """File -> bytes."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_source_distribution_builds_the_same_wheel(wheels: dict[str, Path]) -> None:
    assert contents(wheels["sdist"]) == contents(wheels["checkout"])


def test_a_wheel_installs_one_top_level_name(wheels: dict[str, Path]) -> None:
    names = {name.partition("/")[0] for name in contents(wheels["checkout"])}
    assert {name for name in names if not name.endswith(".dist-info")} == {"haechi"}


def test_a_wheel_holds_every_file_of_the_packages(wheels: dict[str, Path]) -> None:
    files = [file for name in PACKAGES for file in (ROOT / name).rglob("*") if file.is_file()]
    expected = {f"haechi/{file.relative_to(ROOT)}" for file in files if "__pycache__" not in file.parts}
    expected |= {f"haechi/{file.name}" for file in (ROOT / "src" / "haechi").iterdir() if file.is_file()}
    assert {name for name in contents(wheels["checkout"]) if name.startswith("haechi/")} == expected
