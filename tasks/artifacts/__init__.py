"""What Prefect shows of a deliberation: report, ranking, pictures, progress."""
