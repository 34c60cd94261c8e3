"""The command line. A command's module is imported only when that command is called.

Exit status: 0 success, 1 an error in words, 2 a wrong call, 3 see `haechi predict --help`, 4 a requirement of --require
is not met. If the reader of standard output ends, as in `haechi inspect CACHE | head`, the command ends silently with
1, as programs made with click do.
"""

import importlib
import os
import shlex
import sys
from typing import Any

import click

from haechi import __version__
from haechi.cache.closed_pipe import is_closed
from haechi.cache.errors import HaechiError
from haechi.cache.text import visible
from haechi.interruption import raise_again
from haechi.memory import reuse_freed_memory

# Command -> the module with a function of the same name, and the line in `haechi --help`.
COMMANDS = {
    "extract": ("haechi.extract.cli", "Stage 1: extract the features of videos and images into a cache."),
    "validate": ("haechi.extract.cli", "Check every video of a dataset; write the result as CSV."),
    "inspect": ("haechi.cache.cli", "Show a summary of the cache CACHE."),
    "status": (
        "haechi.cache.cli",
        "Show which slices of the cache CACHE are finished, running and missing.",
    ),
    "search": (
        "haechi.extract.search.cli",
        "Rank the videos of CACHE, and moments in them, by similarity to each TEXT.",
    ),
    "verify": ("haechi.cache.cli", "Check every byte of the cache CACHE."),
    "train": (
        "haechi.train.cli",
        "Stage 2: train a head on a feature cache, choose its threshold, write a page of metrics.",
    ),
    "predict": ("haechi.predict.cli", "Judge MEDIA with the trained head in the folder RUN."),
    "evaluate": ("haechi.predict.cli", "Show what the head of RUN is worth on DATA, and why it falls."),
    "export": ("haechi.predict.cli", "Write the head of RUN as ONNX, with its threshold in the metadata."),
    "compare": ("haechi.train.cli", "Show runs side by side, and whether they differ by more than chance."),
}


class LazyGroup(click.Group):
    """A group that imports its commands when they are called, and prints errors that users can cause in words."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The whole command, as the program `haechi` runs it."""
        sys.unraisablehook = raise_again
        return super().__call__(*args, **kwargs)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module_name, _ = COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module_name), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """The root context's `obj` is the command line as called: runs record it."""
        return super().make_context(info_name, args, parent, obj=shlex.join(["haechi", *args]), **extra)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except HaechiError as error:
            raise click.ClickException("\n".join(map(visible, str(error).split("\n")))) from error
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] == "haechi":
                raise
            raise click.ClickException(
                f"the package {error.name!r} is not installed; stage 1 needs `pip install 'haechi[extract]'`, "
                "stage 2 `pip install 'haechi[train]'`, export `pip install 'haechi[export]'`, "
                "s3://, gs:// and az:// `pip install 'haechi[stores]'`, --engine ray `pip install 'haechi[ray]'`"
            ) from error
        except OSError as error:
            if isinstance(error, BrokenPipeError) and is_closed(sys.stdout):
                raise  # click handles it: no message, no further output, exit status 1
            if error.errno is None:
                raise
            where = f"{error.filename}: " if error.filename else ""
            raise click.ClickException(f"{where}{os.strerror(error.errno)}") from error


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(__version__)
def main() -> None:
    """Turn folders of videos into a harmful-content classifier with figures that you can rely on.

    Two stages: `haechi extract DATA --out CACHE` once for each dataset, then `haechi train CACHE --out RUN` in seconds,
    as often as you like.
    """
    reuse_freed_memory()


if __name__ == "__main__":
    main()
