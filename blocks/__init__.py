"""Connections and configuration as Prefect blocks."""
