"""The house: imports run one way, and each stage works where the other stage's packages are absent."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src"

# Package -> the packages that it may import.
ALLOWED = {
    "cache": set(),
    "extract": {"cache"},
    "train": {"cache"},
    "predict": {"cache", "extract", "train"},
}

# Package -> its storeys, from the ground up: files, inner rooms, and `room.file` for a file that stands below its room.
# A file imports from its own storey and those below. Within a storey, and everywhere else, no imports run in a circle.
STOREYS = {
    "cache": [
        {
            "atomic",
            "bad_rows",
            "child_process",
            "closed_pipe",
            "content",
            "file_state",
            "garbage",
            "kinds",
            "location",
            "progress",
            "spelling",
            "text",
            "threads",
        },
        {"annotations", "errors", "local_path", "rules"},
        {"schema", "stores"},
        {"hdf5", "indexed"},
        {
            "console",
            "groups",
            "labels",
            "local_copy",
            "lock",
            "manifest_file",
            "options",
            "progress_bar",
            "shard",
            "slices",
        },
        {"reader", "rows", "writer"},
        {"integrity", "status", "summary"},
        {"cli"},
    ],
    "extract": [
        {"folder", "pixel_aspect", "sampling", "settings", "timing", "backbones.catalog"},
        {"decoding"},
        {"backbones", "stores"},
        {"search"},
        {"assembly", "flow", "interrupt", "job_array", "layout", "manifest", "resume", "samples", "shard_queue"},
        {"commit", "pipeline", "slices", "upload", "validation"},
        {"engines"},
        {"api", "console"},
        {"cli"},
    ],
    "train": [
        {"errors", "options", "policy", "settings", "untrained"},
        {"device", "grid", "run_folder"},
        {"data"},
        {"evaluate"},
        {"model"},
        {"experiment", "pipeline", "plan", "progress", "result", "training_set"},
        {"output"},
        {"api"},
        {"cli"},
    ],
    "predict": [
        {"export", "head_settings", "media", "player_time", "prediction", "scoring"},
        {"console", "heads"},
        {"classifier", "timeline_plot"},
        {"evaluation"},
        {"api"},
        {"cli"},
    ],
}

STAGE_1_ONLY = {"av", "decord", "open_clip", "pebble", "pi_heif", "pytorchvideo", "torchvision"}
FORBIDDEN = {
    "cache": STAGE_1_ONLY | {"torch", "sklearn"},
    "train": STAGE_1_ONLY,
    "extract": {"sklearn", "matplotlib"},
    "predict": set(),
}
# Thumbnails of a page need a decoder: in child processes, and only where it is installed.
EXCEPT = {"train/output/thumbnails.py": {"av", "pi_heif"}}


def modules_of(package: str) -> dict[str, Path]:
    """Dotted name under `haechi` -> file, of every module of a package."""
    files = sorted((ROOT / package).rglob("*.py"))
    return {file.relative_to(ROOT).with_suffix("").as_posix().replace("/", "."): file for file in files}


MODULES = {name: file for package in ALLOWED for name, file in modules_of(package).items()}


def imports_of(path: Path) -> set[str]:
    """The dotted names that a file imports anywhere, inside functions too, without the word `haechi`."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            below = {f"{module}.{alias.name}" for alias in node.names}
            names |= {name for name in below if name.removeprefix("haechi.") in MODULES} or {module}
    return {name.removeprefix("haechi.") if name.startswith("haechi.") else name for name in names}


def storey_of(module: str) -> int:
    """The storey in its package of a module."""
    package, _, rest = module.partition(".")
    name = rest if any(rest in rooms for rooms in STOREYS[package]) else rest.partition(".")[0]
    found = [number for number, rooms in enumerate(STOREYS[package]) if name in rooms]
    assert len(found) == 1, f"{module} is on {len(found)} storeys of STOREYS, expected 1"
    return found[0]


@pytest.mark.parametrize("package", ALLOWED)
def test_packages_import_one_way(package: str) -> None:
    files = modules_of(package)
    assert files
    for file in files.values():
        imported = {name.partition(".")[0] for name in imports_of(file)}
        assert not (imported & set(ALLOWED)) - ALLOWED[package] - {package}, file
        assert not imported & FORBIDDEN[package] - EXCEPT.get(file.relative_to(ROOT).as_posix(), set()), file
        assert "bench" not in imported, file


@pytest.mark.parametrize("package", ALLOWED)
def test_rooms_import_from_below(package: str) -> None:
    for module, file in modules_of(package).items():
        if file.name == "__init__.py":
            assert not {name for name in imports_of(file) if name in MODULES}, f"{file}: a room's door imports nothing"
            continue
        for name in imports_of(file):
            if name in MODULES and name.startswith(f"{package}.") and not name.endswith(".__init__"):
                assert storey_of(name) <= storey_of(module), f"{module} imports {name}, which is above it"


def test_no_imports_run_in_a_circle() -> None:
    arrows = {module: imports_of(file) & set(MODULES) for module, file in MODULES.items()}
    while free := {module for module, targets in arrows.items() if not targets & set(arrows)}:
        arrows = {module: targets for module, targets in arrows.items() if module not in free}
    assert not arrows, f"these import each other: {sorted(arrows)}"


def test_the_distribution_has_every_room() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = [file.parent.relative_to(ROOT) for package in ALLOWED for file in (ROOT / package).rglob("__init__.py")]
    assert listed == ["haechi", *sorted(f"haechi.{folder.as_posix().replace('/', '.')}" for folder in found)]


@pytest.mark.parametrize("package", ALLOWED)
def test_the_links_of_src_lead_to_the_packages(package: str) -> None:
    link = SOURCE / "haechi" / package
    assert link.is_symlink()
    assert str(link.readlink()) == f"../../{package}"
    assert link.resolve() == ROOT / package


def run_without(packages: set[str], code: str) -> subprocess.CompletedProcess[str]:
    """Run code in an interpreter in which some packages cannot be imported."""
    block = f"import sys\nfor name in {sorted(packages)!r}: sys.modules[name] = None\n"
    return subprocess.run(
        [sys.executable, "-c", block + code], capture_output=True, text=True, cwd=ROOT, timeout=300, check=False
    )


# Prints the modules that are loaded, in one line. `loaded` reads them.
SHOW_LOADED = "print('LOADED', *[name for name, module in sys.modules.items() if module])\n"


def loaded(done: subprocess.CompletedProcess[str]) -> set[str]:
    """The modules that a child process has loaded."""
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("LOADED ")]
    return set(line.split()[1:])


ARCHIVED = {name: f"tests/archive/{name}" for name in ("cache", "run")}


def test_train_works_without_the_packages_of_stage_1(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path\n"
        "from tests.synthetic import write_cache\n"
        "import haechi.cli as cli\n"
        f"write_cache(Path({str(tmp_path / 'cache')!r}))\n"
        f"try: cli.main(['train', {str(tmp_path / 'cache')!r}, '--out', {str(tmp_path / 'run')!r}, '--epochs', '1'])\n"
        "except SystemExit as exit: assert not exit.code\n"
        f"{SHOW_LOADED}"
    )
    done = run_without(STAGE_1_ONLY, code)
    assert done.returncode == 0, done.stderr
    assert not loaded(done) & {"torch._dynamo"}  # `torch.optim.Adam` would import torch's compiler
    assert (tmp_path / "run" / "model.pt").exists()


def test_a_cache_is_evaluated_without_the_packages_of_stage_1(tmp_path: Path) -> None:
    arguments = ["evaluate", ARCHIVED["run"], ARCHIVED["cache"], "--out", str(tmp_path / "out")]
    code = f"import haechi.cli\ntry: haechi.cli.main({arguments!r})\nexcept SystemExit as exit: assert not exit.code\n"
    done = run_without(STAGE_1_ONLY, code + SHOW_LOADED)
    assert done.returncode == 0, done.stderr
    assert not loaded(done) & {"torch._dynamo", "matplotlib", "tensorboard"}
    assert (tmp_path / "out" / "evaluation.html").exists()


def test_a_missing_package_is_reported_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    code = f"import haechi.cli; haechi.cli.main(['extract', {str(tmp_path)!r}, '--out', {str(tmp_path / 'c')!r}])"
    done = run_without({"pebble"}, code)
    assert done.returncode == 1
    assert "the package 'pebble' is not installed" in done.stderr
    assert "Traceback" not in done.stderr


def run_command(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command of Haechi, and print the modules that it loaded."""
    code = f"import sys, haechi.cli\ntry: haechi.cli.main({arguments!r})\nexcept SystemExit: pass\n{SHOW_LOADED}"
    return run_without(set(), code)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["extract", "--help"], ["train", "--help"], ["inspect", "--help"], ["search", "--help"]]
)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    assert not loaded(run_command(arguments)) & {"torch", "h5py", "sklearn", "matplotlib", "decord", "av"}


# A command, and packages that it does not need: their imports take seconds of CPU time, several times as many where
# there is no bytecode.
LIGHT = [
    (["inspect", ARCHIVED["cache"]], {"torch", "scipy", "sklearn", "matplotlib", "av", "obstore", "huggingface_hub"}),
    (["compare", ARCHIVED["run"], ARCHIVED["run"]], {"torch", "matplotlib", "plotly"}),
    (
        ["predict", ARCHIVED["run"], "--cache", ARCHIVED["cache"], "--clip-model", "local-dir:."],
        {"sklearn", "scipy.stats", "matplotlib", "plotly", "tensorboard", "torch._dynamo"} | STAGE_1_ONLY,
    ),
]


@pytest.mark.parametrize(("arguments", "heavy"), LIGHT, ids=[arguments[0] for arguments, _ in LIGHT])
def test_a_command_loads_only_what_it_needs(arguments: list[str], heavy: set[str]) -> None:
    done = run_command(arguments)
    assert "Error" not in done.stderr
    assert len(done.stdout.splitlines()) > 3  # a table, and the modules
    assert not loaded(done) & heavy


def test_a_decoding_process_loads_only_decoders() -> None:
    done = run_without(set(), f"import haechi.extract.decoding.pool\n{SHOW_LOADED}")
    assert "numpy" in loaded(done)
    assert not loaded(done) & {"torch", "scipy", "sklearn", "h5py", "rich", "matplotlib"}
