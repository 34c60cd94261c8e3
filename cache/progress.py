"""Progress of a stage: one object whose methods the stage calls while it works."""


class Progress:
    """Shows nothing. The command line, or a notebook, passes a subclass that shows the progress.

    All methods are called in the thread that runs the stage.
    """

    def start(self, total: int, what: str) -> None:
        """Work on `total` items starts. `what` names the work and the device, such as `extract on cpu, fp32`.

        A stage with several steps calls it once for each step.
        """

    def advance(self, count: int = 1, *, failed: bool = False) -> None:
        """`count` more items are finished; `failed` means that they could not be used."""

    def windows(self, count: int) -> None:
        """`count` more windows of long videos are computed. A long video stays a single item for a long time."""

    def notice(self, text: str) -> None:
        """Show the user a sentence."""

    def stopping(self) -> None:
        """Ctrl-C was received; items that were started are still finished."""


SILENT = Progress()
