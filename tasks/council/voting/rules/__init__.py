"""The tally rules, one a file; `registry.py` lists them."""
