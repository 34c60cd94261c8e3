"""The house: arrows run one way, and each stage works where the other's packages are absent."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("cache", "extract", "train", "predict")
ALLOWED = {
    "cache": set(),
    "extract": {"cache"},
    "train": {"cache"},
    "predict": {"cache", "extract", "train"},
}
STAGE_1_ONLY = {"av", "decord", "open_clip", "pebble", "pytorchvideo", "torchvision"}
FORBIDDEN = {
    "cache": STAGE_1_ONLY | {"torch", "sklearn"},
    "train": STAGE_1_ONLY,
    "extract": {"sklearn", "matplotlib"},
    "predict": set(),
}
# Thumbnails of a page need a decoder: in child processes, and only where it is installed.
EXCEPT = {"train/thumbnails.py": {"av"}}


def imports_of(path: Path) -> set[str]:
    """The top-level names that a file imports anywhere, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("package", [name for name in PACKAGES if (ROOT / name).is_dir()])
def test_arrows(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for file in files:
        imported = imports_of(file)
        assert not (imported & set(PACKAGES)) - ALLOWED[package] - {package}, file
        assert not imported & FORBIDDEN[package] - EXCEPT.get(file.relative_to(ROOT).as_posix(), set()), file


def test_nothing_rests_on_the_benchmarks() -> None:
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            assert "bench" not in imports_of(file), file


def run_without(packages: set[str], code: str) -> subprocess.CompletedProcess[str]:
    """Run code in an interpreter in which some packages cannot be imported."""
    block = f"import sys\nfor name in {sorted(packages)!r}: sys.modules[name] = None\n"
    return subprocess.run(
        [sys.executable, "-c", block + code], capture_output=True, text=True, cwd=ROOT, timeout=300, check=False
    )


def test_train_works_without_the_packages_of_stage_1(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path\n"
        "from tests.synthetic import write_cache\n"
        "import haechi\n"
        f"write_cache(Path({str(tmp_path / 'cache')!r}))\n"
        f"haechi.main(['train', {str(tmp_path / 'cache')!r}, '--out', {str(tmp_path / 'run')!r}, '--epochs', '1'])\n"
    )
    done = run_without(STAGE_1_ONLY, code)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "model.pt").exists()


def test_a_missing_package_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    code = f"import haechi; haechi.main(['extract', {str(tmp_path)!r}, '--out', {str(tmp_path / 'c')!r}])"
    done = run_without({"decord"}, code)
    assert done.returncode == 1
    assert "the package 'decord' is not installed" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["extract", "--help"], ["train", "--help"], ["inspect", "--help"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys, haechi\n"
        f"try: haechi.main({arguments!r})\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'h5py', 'sklearn', 'matplotlib', 'decord', 'av'} & set(sys.modules)\n"
        "print('HEAVY', sorted(heavy))\n"
    )
    assert "HEAVY []" in run_without(set(), code).stdout
