"""Trained heads on new media."""
