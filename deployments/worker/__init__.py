"""The warm worker: takes requests from the queue and runs their flows in its own process.

`prefect worker start --pool conclave --type conclave` finds it through Prefect's entry point.
"""

from deployments.worker.prefect_worker import ConclaveWorker

__all__ = ["ConclaveWorker"]
