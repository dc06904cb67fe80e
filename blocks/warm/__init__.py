"""A Prefect task runner on Ray whose hosts stay."""
