"""Inference: from recordings of any source to embeddings, class probabilities and timelines."""
