"""Readers of raw skeleton formats and data sets."""
