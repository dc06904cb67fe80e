"""The wire of `orchestrator.v1`: its proto, the code made of it, and what of a deliberation its messages tell."""
