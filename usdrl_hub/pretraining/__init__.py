"""Self-supervised pretraining: views, multi-grained feature decorrelation, trainer and recipes."""
