"""Readers of motion-capture files: one module for each kind, each with ``read(path, reading, on_error)``."""
