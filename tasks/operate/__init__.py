"""Keeping an installation well: diagnosis, retention, what nobody runs."""
