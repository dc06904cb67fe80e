"""The benchmark of a batch: thousands of questions beside a plain client, LangGraph, Prefect, Ray Data and curator."""
