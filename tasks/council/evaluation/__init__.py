"""Strategies side by side on questions with known answers."""
