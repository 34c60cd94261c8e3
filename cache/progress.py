"""What a stage reports while it works: one object instead of a callback for each event."""


class Progress:
    """Reports that nobody sees. The command line, or a notebook, passes a subclass that shows them.

    All methods are called in the thread that runs the stage.
    """

    def start(self, total: int, what: str) -> None:
        """Work on `total` items begins; `what` says what is done and where, such as `extract on cpu, fp32`.

        A stage that does several things one after another calls it once for each.
        """

    def advance(self, count: int = 1, *, failed: bool = False) -> None:
        """`count` more items are finished; `failed`: they could not be used."""

    def windows(self, count: int) -> None:
        """`count` more windows of long videos are computed: one long video is a single item for a long time."""

    def notice(self, text: str) -> None:
        """A sentence that the user should read."""

    def stopping(self) -> None:
        """Ctrl-C was received: what has begun is being finished."""


SILENT = Progress()
