"""What `haechi inspect --search` calls: its flags stand in `haechi.cache.cli`, which may know no model."""

from pathlib import Path

import click


@click.command(hidden=True)
def search(
    *, cache: Path, texts: tuple[str, ...], top: int, clip_model: str | None, clip_weights: str | None, as_json: bool
) -> None:
    """Rank a cache's videos and moments by how near they are to texts."""
    import json
    from dataclasses import asdict

    from rich.console import Console

    from haechi.cache.reader import Cache
    from haechi.extract.search import ranking as searching
    from haechi.extract.search.text import clip_of, embed

    opened = Cache.open(cache)
    embedded = embed(clip_of(opened, model=clip_model, weights=clip_weights), list(texts))
    searching.show_cut(embedded.cut, Console(stderr=True, highlight=False, emoji=False))
    found = searching.search(opened, embedded.rows, top=top)
    if as_json:
        records = [
            {"search": text, **asdict(video)} for text, videos in zip(texts, found, strict=True) for video in videos
        ]
        click.echo(json.dumps(records, indent=2, allow_nan=False))
        return
    console = Console(highlight=False, emoji=False)
    for text, videos in zip(texts, found, strict=True):
        searching.show_found(text, videos, console)
    console.print(
        "score: cosine similarity of the text and the frame at that time; only the order means something",
        soft_wrap=True,
        style="dim",
    )
