"""Writes a page as one HTML file that needs no network and no other file.

The page of a run and the page of an evaluation share what is in `page_files/`: the template `base.html.j2`, macros, the
style, and the scripts `SHARED_SCRIPTS`, which draw charts with Plotly. All of it is copied into the page. Ids, groups,
paths and messages come from outside: each goes through `haechi.cache.text.visible` and Jinja's escaping, none goes into
a script, and the page's Content-Security-Policy blocks all other scripts and all requests.
"""

import base64
import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from haechi.cache.text import visible
from haechi.train.output.page_numbers import figure, figure_interval, percent, percent_interval, signed, signed_interval
from haechi.train.output.titles import SPLIT_TITLES

FOLDER = "page_files"
STYLE = "style.css"
SHARED_SCRIPTS = ["numbers.js", "drawing.js", "sorting.js"]

BACKBONE_TITLES = {"clip": "CLIP", "slowfast": "SlowFast"}


def write_html(
    path: Path,
    template: str,
    *,
    package: str = "",
    styles: Sequence[str] = (),
    scripts: Sequence[str],
    data: dict[str, Any],
    title: str,
    command: str,
    untrained: list[str],
    **variables: Any,
) -> None:
    """Write a page from a template that extends `base.html.j2`, about 5 MB, nearly all of it Plotly.

    `template`, `styles` and `scripts` are names of files in the folder `page_files` of `package`, or of this package;
    the scripts run after the shared ones. `data` is what the scripts draw: numbers, and names that come from Haechi
    itself, no text from outside. `untrained` are backbones with random weights. The template sees `variables`. Raises
    `OSError` where `path` cannot be written.
    """
    environment = _environment(package)
    all_scripts = [get_plotlyjs(), "\n".join(_asset(environment, name) for name in [*SHARED_SCRIPTS, *scripts])]
    text = environment.get_template(template).render(
        title=title,
        command=command,
        backbones=[BACKBONE_TITLES.get(name, name) for name in untrained],
        data=htmlsafe_json_dumps(data, allow_nan=False, separators=(",", ":")),
        style=Markup("\n".join(_asset(environment, name) for name in [STYLE, *styles])),  # noqa: S704 (ours)
        scripts=[Markup(script) for script in all_scripts],  # noqa: S704 (ours and Plotly's)
        content_policy=_content_policy(all_scripts),
        **variables,
    )
    path.write_text(text, encoding="utf-8")


@functools.cache  # compiling the templates takes most of the time of a page
def _environment(package: str) -> jinja2.Environment:
    packages = [*([package] if package else []), __package__]
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(name, FOLDER) for name in packages]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.filters |= {
        "figure": figure,
        "interval": figure_interval,
        "signed": signed,
        "signed_interval": signed_interval,
        "percent": percent,
        "percent_interval": percent_interval,
        "part": _split_title,
        "count": _count,
    }
    return environment


def data_uri(jpeg: bytes) -> str:
    """A picture as the address of an `img`."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def _split_title(part: str) -> str:
    return SPLIT_TITLES[part]


def _count(number: int, noun: str = "") -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}" if noun else f"{number:,}"


def _finalize(value: Any) -> Any:
    """Applied to every expression of the templates before it is escaped."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _asset(environment: jinja2.Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _content_policy(scripts: list[str]) -> str:
    """A policy that allows only these scripts, by hash, and no requests. Plotly needs inline styles."""
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts]
    return (
        f"default-src 'none'; script-src {' '.join(hashes)}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
