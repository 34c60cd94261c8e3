"""The comparison of a head with the baselines, in words."""

from haechi.train.evaluate import metrics
from haechi.train.output.titles import BASELINE_TITLES
from haechi.train.result import Result


def verdict(result: Result) -> str:
    """One sentence for each baseline: whether the head is significantly better or worse on the headline part."""
    sentences = [_sentence(result, name) for name in result.baselines]
    return " ".join([*sentences, "Significant: the 95 % bootstrap interval of the difference does not contain 0."])


def _sentence(result: Result, name: str) -> str:
    figures, baseline = result.metrics[result.headline], result.baseline_metrics[name][result.headline]
    better, worse, details = [], [], []
    for metric in metrics.METRICS:
        ours, theirs, lead = figures[metric.name], baseline[metric.name], result.lead[name][metric.name]
        if not metric.is_in_verdict or ours is None or theirs is None or lead is None:
            continue
        details.append(f"{metric.title} {ours:.3f} against {theirs:.3f} (difference {lead[0]:+.3f} to {lead[1]:+.3f})")
        if lead[0] > 0:
            better.append(metric.title)
        elif lead[1] < 0:
            worse.append(metric.title)
    against = f"than the {BASELINE_TITLES[name]} baseline"
    if not details:
        return f"The head cannot be compared with the {BASELINE_TITLES[name]} baseline: no metric is defined for both."
    if better and worse:
        words = f"significantly better {against} in {_joined(better)} and significantly worse in {_joined(worse)}"
    elif better or worse:
        words = f"significantly {'better' if better else 'worse'} {against} in {_joined(better or worse)}"
    else:
        words = f"not significantly better or worse {against}"
    return f"The head is {words}: {', '.join(details)}."


def _joined(titles: list[str]) -> str:
    return " and ".join(titles)
