"""The same numbers, faster. Everything computes the same without this folder: see `speedups` and ``USDRL_PLAIN=1``."""
