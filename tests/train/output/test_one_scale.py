import numpy as np

from haechi.train.output.one_scale import on_one_scale


def test_one_scale_keeps_decisions_and_order() -> None:
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.random(300), [0.0, 1.0, 0.2, 0.9]])
    thresholds = np.array([0.2, 0.5, 0.9])[np.arange(len(scores)) % 3]
    scores[:30] = thresholds[:30]
    shifted = on_one_scale(scores, thresholds, 0.437)
    assert ((shifted >= 0.437) == (scores >= thresholds)).all()
    for each in np.unique(thresholds):
        mine = thresholds == each
        assert (np.diff(shifted[mine][np.argsort(scores[mine], kind="stable")]) >= 0).all()
    assert (on_one_scale(scores, np.full(len(scores), 0.437), 0.437) == scores).all()
