"""The tasks: one file each for what it trains, what it predicts and how it is scored."""
