"""Facts about data sets, benchmarks, checkpoints and recipes: plain data, without torch and transformers."""
