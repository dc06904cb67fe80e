"""Ray Data's HTTP request processor, on a Ray of its own.

Its stage sends the requests of a batch one after another (ray 2.60: coroutines that nobody has started are awaited in
turn), so what lets many be in flight is many batches: of one row each, as many at once in each actor as its share of
the slots (RAY_DATA_DEFAULT_ASYNC_BATCH_UDF_MAX_CONCURRENCY, 4 by default).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from deployments.bench.batch.peers.protocol import Job, Work, authorization, serve

ACTORS = 1
AT_ONCE = "RAY_DATA_DEFAULT_ASYNC_BATCH_UDF_MAX_CONCURRENCY"
STORE_BYTES = 500_000_000


@asynccontextmanager
async def ray_data(job: Job) -> AsyncGenerator[Work, None]:
    """Ray, up and alone; the calls as JSON lines, which it reads by itself."""
    os.environ[AT_ONCE] = str(math.ceil(job.slots / ACTORS))
    import ray
    from ray.data.llm import HttpRequestProcessorConfig, build_processor

    # Its temporary files keep Ray's usual folder: its sockets' paths have 107 characters at most.
    ray.init(
        num_cpus=ACTORS + 1,
        include_dashboard=False,
        object_store_memory=STORE_BYTES,
        log_to_driver=False,
        runtime_env={"env_vars": {AT_ONCE: os.environ[AT_ONCE]}},
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = Path(job.folder) / "ray-data.jsonl"
    with rows.open("w") as file:
        for _, body in job.lines():
            file.write(json.dumps({"body": body.decode()}) + "\n")
    config = HttpRequestProcessorConfig(
        url=job.endpoint, headers=authorization() or None, batch_size=1, concurrency=(ACTORS, ACTORS)
    )
    processor = build_processor(config, preprocess=_payload, postprocess=_content)

    async def work() -> int:
        # A block is a task: its batches are in flight together, and it ends with the slowest of them.
        data = ray.data.read_json(str(rows), override_num_blocks=ACTORS)
        answers = processor(data).iter_rows()
        return sum(bool(answer["content"]) for answer in answers)

    try:
        yield work
    finally:
        ray.shutdown()


def _payload(row: dict[str, Any]) -> dict[str, Any]:
    return {"payload": json.loads(row["body"])}


def _content(row: dict[str, Any]) -> dict[str, Any]:
    return {"content": row["http_response"]["choices"][0]["message"]["content"]}


if __name__ == "__main__":
    from deployments.bench.batch.peers import ray_data as itself  # Ray's processes find nothing in a main module

    serve(itself.ray_data)
