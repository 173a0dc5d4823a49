"""Readers of skeleton files, and data sets of their sequences."""
