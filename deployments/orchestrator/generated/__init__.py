"""Code that `make proto` makes of `orchestrator.proto`."""
