"""A deliberation in words, for the report and the terminal."""
