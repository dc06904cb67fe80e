"""The benchmark of the worker: the way from a door to the decision, many at once, and memory over thousands of runs."""
