"""Webhooks in: which there are, how each is signed, and what its deliveries ask for."""
