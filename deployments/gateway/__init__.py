"""The HTTP API: thin adapters over the use cases of `tasks/deliberations/`, behind tokens and bounds.

It needs NATS and nothing else: neither Prefect, Ray nor pandas is imported. What it accepts is in the queue before it
answers, so a worker that is away, or a Prefect that is, delays a deliberation and loses none.
"""
