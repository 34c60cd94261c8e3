"""Printing to the terminal."""

import pytest

from haechi.cache.console import make_console, show_notices


@pytest.mark.parametrize("stderr", [False, True])
def test_texts_are_printed_as_they_are(capsys: pytest.CaptureFixture[str], stderr: bool) -> None:
    show_notices(make_console(stderr=stderr), [":bomb: [red]12.5[/]"])
    streams = capsys.readouterr()
    assert (streams.err if stderr else streams.out) == "note: :bomb: [red]12.5[/]\n"
    assert (streams.out if stderr else streams.err) == ""
