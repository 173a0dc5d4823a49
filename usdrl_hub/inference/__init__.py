"""Embeddings and predictions from files or sequences, and pictures of them."""
