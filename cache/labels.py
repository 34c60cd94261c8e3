"""From the label that a file or folder gives, such as `Fight`, to harmful, safe or unlabelled."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from haechi.cache import schema
from haechi.cache.text import counted, named, shown, visible

# What each label may be called, in any case. `unlabelled` is how `haechi validate` writes a missing label.
SPELLINGS = {
    schema.HARMFUL: r"harmful|true|yes|1(\.0+)?",
    schema.SAFE: r"safe|false|no|0(\.0+)?",
    schema.UNLABELLED: r"|unlabelled",
}
EXPECTED = "1, harmful, true or yes; 0, safe, false or no; or empty"

MAX_NAMES = 20


def folded(name: str) -> str:
    """The same text for all ways to write a name: any case, composed or decomposed letters, spaces at the ends."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold()).strip()


@dataclass(frozen=True, kw_only=True)
class LabelRule:
    """How labels in a manifest are understood."""

    positive: tuple[str, ...] = ()
    """The names of the harmful labels, in any case; all others that are not empty are safe. Without any, labels are
    those of `SPELLINGS`."""

    def label_of(self, text: str) -> int | None:
        """1 harmful, 0 safe, -1 unlabelled; None for an unknown label."""
        name = folded(text)
        if self.positive and not re.fullmatch(SPELLINGS[schema.UNLABELLED], name):
            return schema.HARMFUL if name in map(folded, self.positive) else schema.SAFE
        return next((label for label, pattern in SPELLINGS.items() if re.fullmatch(pattern, name)), None)

    def problems(self, names: Iterable[str]) -> list[str]:
        """What is wrong with `positive` for a file that has the labels `names`."""
        labels = [name for name in names if not re.fullmatch(SPELLINGS[schema.UNLABELLED], folded(name))]
        return positive_problems(self.positive, labels, flag="--positive-label", lacking="no label {} in the file")


def positive_problems(positive: Sequence[str], names: Sequence[str], *, flag: str, lacking: str) -> list[str]:
    """What is wrong with the names `positive`, given with `flag`, where `names` are the labels that occur.

    `lacking`: the text for a name that does not occur, with `{}` in its place.
    """
    if not positive:
        return []
    given, there = {folded(name) for name in positive}, {folded(name) for name in names}
    problems = [
        f"{lacking.format(shown(name))}; there are: {named(sorted(names))}"
        for name in dict.fromkeys(positive)
        if folded(name) not in there
    ]
    word = schema.LABEL_NAMES[schema.HARMFUL]
    if word in there - given:
        problems.append(f"{shown(word)} would be safe, because {flag} does not name it; add {flag} {word}")
    return problems


def understood(
    names: Mapping[str, int], noun: tuple[str, str], *, labels: Iterable[int], splits: Iterable[str] = ()
) -> str:
    """How a file or folder was understood, on one line: `2 splits, 2 classes: Fight = harmful, NonFight = safe (…)`.

    `names`: each class or label -> 1, 0 or -1; `noun`: what they are, singular and plural. `labels`, `splits`: those of
    all files, which are counted in brackets.
    """
    num_files, num_in = Counter(labels), Counter(splits)
    used = [split for split in schema.SPLITS if num_in[split]]
    parts = [counted(len(used), "split")] if used else []
    order = sorted(names, key=lambda name: (-names[name], name))
    meanings = [f"{visible(name[:80])} = {schema.LABEL_NAMES[names[name]]}" for name in order[:MAX_NAMES]]
    if len(order) > MAX_NAMES:
        meanings.append(f"and {len(order) - MAX_NAMES} more")
    parts.append(f"{counted(len(names), *noun)}: {', '.join(meanings)}" if names else f"no {noun[1]}")
    counts = [
        [f"{num_files[label]:,} {name}" for label, name in schema.LABEL_NAMES.items() if num_files[label]],
        [f"{num_in[split]:,} {split}" for split in used]
        + ([f"{num_in['']:,} in no split"] if used and num_in[""] else []),
    ]
    return f"{', '.join(parts)} ({'; '.join(', '.join(each) for each in counts if each)})"
