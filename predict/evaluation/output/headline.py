"""What a head is worth on a set, in one sentence."""

from dataclasses import dataclass

import numpy as np

from haechi.cache.schema import HARMFUL
from haechi.cache.text import counted
from haechi.predict.evaluation.evaluation import Evaluation, RunFacts
from haechi.train.output.page_numbers import percent, percent_interval

# With fewer harmful videos than this, "of 100" would be misleading: the sentence has the counts themselves.
MIN_HARMFUL = 20


@dataclass(frozen=True, kw_only=True)
class Headline:
    """A sentence in parts."""

    parts: tuple[str, ...]
    """The second, fourth … are emphasised."""

    @property
    def text(self) -> str:
        """The whole sentence."""
        return "".join(self.parts)


def own_place(run: RunFacts) -> str:
    """Where the run's own figures are from, as in "on its own test it found 84"."""
    if run.is_folds:
        return "in cross-validation"
    return {"test": "on its own test", "val": "on its own validation videos"}[run.part]


def headline(evaluation: Evaluation) -> Headline:
    """The sentence at the top of the page."""
    here, noun = evaluation.here, evaluation.run.kind
    is_flagged = here.scores >= here.thresholds
    if not len(here):
        return _unlabelled_headline(evaluation)
    if not here.num_harmful:
        none = f"None of your {counted(len(here), f'labelled {noun}')} is harmful; it wrongly flags "
        return Headline(parts=(none, f"{is_flagged.sum():,}", " of them."))
    found = int(is_flagged[here.labels == HARMFUL].sum())
    is_few = here.num_harmful < MIN_HARMFUL
    parts = (
        f"On your {counted(len(here), noun)} it finds ",
        f"{found:,} of {here.num_harmful:,}" if is_few else f"{_of_100(found / here.num_harmful)} of 100",
        f" harmful {'one' if here.num_harmful == 1 else 'ones'}",
    )
    own = evaluation.own_figures["recall"] if evaluation.own_figures else None
    if own is None:
        return Headline(parts=(*parts[:2], f"{parts[2]}."))
    own_text = f"{_of_100(own)} of 100" if is_few else _of_100(own)
    return Headline(parts=(*parts[:2], f"{parts[2]}; {own_place(evaluation.run)} it found ", own_text, "."))


def num_flagged_unlabelled(evaluation: Evaluation) -> int:
    """Unlabelled videos that reach the threshold."""
    return int(np.count_nonzero(evaluation.unlabelled.scores >= evaluation.run.threshold))


def _unlabelled_headline(evaluation: Evaluation) -> Headline:
    estimate, total, noun = evaluation.estimate, len(evaluation.unlabelled_ids), evaluation.run.kind
    if not total:
        return Headline(parts=(f"No {noun} of this set could be evaluated.",))
    unlabelled = counted(total, f"unlabelled {noun}")
    flagged = f"{num_flagged_unlabelled(evaluation):,}"
    if estimate is None or estimate.value is None:
        rest = f" of your {unlabelled}; how many are harmful cannot be estimated."
        return Headline(parts=("It flags ", flagged, rest))
    share = percent(estimate.value)
    interval = percent_interval(estimate.interval)
    range_text = f" ({interval})" if interval else ""
    return Headline(
        parts=(f"Of your {unlabelled} an estimated ", share, f"{range_text} are harmful; it flags ", flagged, ".")
    )


def _of_100(share: float) -> str:
    """A share as a number of 100; never 0 or 100 for another share."""
    rounded = round(100 * share)
    if rounded == 100 and share < 1:
        return "over 99"
    return "under 1" if rounded == 0 and share > 0 else str(rounded)
