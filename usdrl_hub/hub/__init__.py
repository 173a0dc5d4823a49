"""Checkpoints: the ones that ship, the authors' own, and their cards."""
