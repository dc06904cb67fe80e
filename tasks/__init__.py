"""The steps of a deliberation; the pure domain is in `tasks.council`."""
