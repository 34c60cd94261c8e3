"""Titles of the parts of a split and of the baselines, as the page, the pictures and the terminal show them."""

SPLIT_TITLES = {"train": "Training", "val": "Validation", "test": "Test"}

# As in the middle of a sentence.
BASELINE_NAMES = {"majority": "the majority class", "logistic_regression": "logistic regression"}

# As a title of a column.
BASELINE_TITLES = {"majority": "majority class", "logistic_regression": "logistic regression"}
