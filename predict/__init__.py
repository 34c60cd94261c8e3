"""A trained head on new media."""
