"""Two checkouts measured in turns in one run: what a change costs, as a ratio with its interval."""
