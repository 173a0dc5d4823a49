"""Metrics: arrays in, dictionaries out; nothing here knows a model."""
