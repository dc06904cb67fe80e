"""Stock Prefect with prefect-ray: a task for each council, on a Ray of its own and the stack's Prefect server."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from itertools import islice

from deployments.bench.batch.peers.protocol import Job, Work, authorization, serve

AT_ONCE = 8
"""Tasks at once: each needs a process with Prefect in it, which takes 100 MB and seconds of a core to start."""


@asynccontextmanager
async def stock_prefect(job: Job) -> AsyncGenerator[Work, None]:
    """Ray, up and alone; the flow, whose tasks ask three members at once each."""
    import ray
    from prefect import flow, task
    from prefect_ray import RayTaskRunner
    from prefect_ray.context import remote_options

    ray.init(num_cpus=AT_ONCE, include_dashboard=False, log_to_driver=False)
    key = authorization()

    @task(retries=0, persist_result=False)
    def council(url: str, bodies: list[bytes]) -> int:
        import asyncio

        import aiohttp

        async def ask(session: aiohttp.ClientSession, body: bytes) -> int:
            headers = {"Content-Type": "application/json", **key}
            async with session.post(url, data=body, headers=headers) as answer:
                answer.raise_for_status()
                return len((await answer.json())["choices"])

        async def ask_all() -> int:
            async with aiohttp.ClientSession() as session:
                return sum(await asyncio.gather(*(ask(session, body) for body in bodies)))

        return asyncio.run(ask_all())

    @flow(task_runner=RayTaskRunner(), name="stock-batch")
    def batch() -> int:
        lines = (body for _, body in job.lines())
        with remote_options(num_cpus=1):
            futures = [
                council.submit(job.endpoint, list(islice(lines, len(job.council["members"])))) for _ in range(job.rows)
            ]
        return sum(future.result() for future in futures)

    async def work() -> int:
        import asyncio

        return await asyncio.to_thread(batch)

    os.environ["PREFECT_LOGGING_LEVEL"] = "ERROR"
    try:
        yield work
    finally:
        ray.shutdown()


if __name__ == "__main__":
    serve(stock_prefect)
