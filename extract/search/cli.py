"""`haechi search`: texts in, a table of videos and moments out."""

from pathlib import Path

import click

from haechi.cache.options import CachePath, shard_cache_option


@click.command()
@click.argument("cache", type=CachePath(path_type=Path))
@click.argument("texts", metavar="TEXT...", nargs=-1, required=True)
@click.option("--top", type=click.IntRange(min=1), default=20, help="Videos shown for each text, at most.")
@click.option(
    "--clip-model",
    metavar="local-dir:PATH",
    help="Where the CLIP of the cache is, if it is a folder of your own. [default: the cache's model of open_clip]",
)
@click.option(
    "--clip-weights",
    metavar="TAG=PATH",
    help="Where the CLIP weights of the cache are, if they were moved. [default: where they were at extraction]",
)
@shard_cache_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def search(
    *,
    cache: Path | str,
    texts: tuple[str, ...],
    top: int,
    clip_model: str | None,
    clip_weights: str | None,
    shard_cache_gb: float,
    as_json: bool,
) -> None:
    """Rank the videos of CACHE, and moments in them, by similarity to each TEXT.

    A TEXT says what the frames should show, such as 'people fighting in a street', in a language that the CLIP of the
    cache was trained on: English for OpenAI's. The cache must be made with pretrained CLIP weights.
    """
    if not all(text.strip() for text in texts):
        raise click.UsageError("a TEXT is empty: give the words to search for")

    import json
    from dataclasses import asdict

    from haechi.cache.console import make_console
    from haechi.cache.reader import Cache
    from haechi.extract.search import ranking
    from haechi.extract.search.text import embed_texts, load_clip

    opened = Cache.open(cache, shard_cache_gb=shard_cache_gb)
    embedded = embed_texts(load_clip(opened, model=clip_model, weights=clip_weights), list(texts))
    ranking.show_too_long(embedded.too_long, make_console(stderr=True))
    rankings = ranking.search(opened, embedded.rows, top=top)
    if as_json:
        records = [
            {"search": text, **asdict(video)} for text, videos in zip(texts, rankings, strict=True) for video in videos
        ]
        click.echo(json.dumps(records, indent=2, allow_nan=False))
        return
    console = make_console()
    for text, videos in zip(texts, rankings, strict=True):
        ranking.show_ranking(text, videos, console)
    console.print(
        "score: cosine similarity of the text and the frame at that time; only the order of the scores has a meaning",
        soft_wrap=True,
        style="dim",
    )
