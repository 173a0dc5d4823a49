"""Scores of predictions: arrays in, dictionaries out; nothing here knows a model."""
