"""Ballots, checks and how they are tallied."""
