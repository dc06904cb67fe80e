"""Prefect's own command, without some of its troubles: `python -m infra.prefect_server server start`.

*Standstills of a minute.* A statement that fails ("database is locked") leaves its cursor open in SQLAlchemy's dialect
for aiosqlite (2.0.58, `AsyncAdapt_aiosqlite_cursor.execute`), in a cycle with its traceback. The garbage collector
frees it on the thread of the event loop, and that waits for the mutex of the cursor's connection (`sqlite3_reset`),
which by then another statement may hold that waits for SQLite's write lock. Whoever has the write lock cannot commit,
since the loop stands still: until SQLite gives up, after Prefect's `busy_timeout` of 60 s. So a cursor is closed here
as soon as a statement fails, on the connection's own thread.

*Refused writes.* A deferred transaction that reads and then writes is refused at once where somebody else has written
in between: no timeout helps (SQLITE_BUSY_SNAPSHOT, https://www.sqlite.org/isolation.html). Prefect answers 503, and its
clients wait ever longer between their tries: sixteen runs that were created at once took up to two minutes. Prefect
takes the write lock first (`BEGIN IMMEDIATE`) where a run's state is set (`with_for_update`); here all of its
transactions do, and wait for one another. What only reads has no transaction.

*Schemas.* A run that is made of a deployment is checked against the schema of its parameters, and the schema each time
against the schema of schemas, which takes our nested forms 0.1 s (`jsonschema.validate`). A schema that has passed has
passed.

*Garbage.* Each collection that looks through what is loaded holds every answer up for 0.1 s and more, and Python looks
for young garbage so often that it takes a tenth of the server's time.

*Doors.* Prefect asks for its key, but it lets any page and any name of this machine try. Here only its own pages may:
`guard` refuses other origins and other hosts, before anything of Prefect's sees the request.
"""

from __future__ import annotations

import functools
import gc
import json
import runpy
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any

import aiosqlite
import prefect.server.api.server as api
from fastapi import FastAPI
from prefect.server.database.configurations import AioSqliteConfiguration
from prefect.settings import PREFECT_SERVER_CORS_ALLOWED_ORIGINS
from prefect.utilities.schema_tools import validation
from starlette.middleware.trustedhost import TrustedHostMiddleware

from infra.origins import OwnOrigins
from infra.parameter_bounds import bound_bodies

THRESHOLDS = (20_000, 5, 5)
"""As those of `blocks/warm/garbage.py`, which is no part of what stands alone."""
METHODS = ("execute", "executemany", "fetchall")
"""What SQLAlchemy calls."""
HOSTS = ("127.0.0.1", "localhost", "[::1]", "prefect-in-memory")
"""Names that requests may come under; the last is what Prefect's services call the application in their own process."""


def close_what_fails(kind: type[aiosqlite.Cursor] = aiosqlite.Cursor) -> None:
    """Let a cursor close itself where one of its statements fails or is cancelled."""
    for name in METHODS:
        setattr(kind, name, _closing(getattr(kind, name)))


def lock_first(kind: type[AioSqliteConfiguration] = AioSqliteConfiguration) -> None:
    """Let each of Prefect's transactions on SQLite begin with the write lock."""
    deferred = kind.begin_transaction

    @functools.wraps(deferred)
    def begin(
        self: AioSqliteConfiguration, session: Any, with_for_update: bool = False
    ) -> AbstractAsyncContextManager[Any]:
        return deferred(self, session, with_for_update=True)

    setattr(kind, deferred.__name__, begin)


def check_schemas_once(kind: Any = validation._VALIDATOR) -> None:
    """Let a validator check each schema that is sound once; one that is not is refused every time."""
    check = kind.check_schema

    @functools.lru_cache(maxsize=256)
    def check_text(text: str) -> None:
        check(json.loads(text))

    def check_schema(schema: Any, **options: Any) -> None:
        if options:
            check(schema, **options)
        else:  # as `jsonschema.validate` asks
            check_text(json.dumps(schema, sort_keys=True))

    kind.check_schema = staticmethod(check_schema)


def guard_its_doors() -> None:
    """Let every application that Prefect makes be guarded, and what was loaded for it not be garbage."""
    make = api.create_app

    @functools.wraps(make)
    def create_app(*arguments: Any, **options: Any) -> FastAPI:
        app = make(*arguments, **options)
        if not getattr(app.state, "guarded", False):  # Prefect keeps it and gives it again
            guard(app)
            app.state.guarded = True
        if not gc.get_freeze_count():
            gc.collect()
            gc.freeze()
            gc.set_threshold(*THRESHOLDS)
        return app

    setattr(api, make.__name__, create_app)


def guard(app: FastAPI) -> None:
    """What a request passes before Prefect sees it; what is added last comes first."""
    app.add_middleware(OwnOrigins, origins=PREFECT_SERVER_CORS_ALLOWED_ORIGINS.value().split(","))
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=HOSTS, www_redirect=False)


def _closing(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(method)
    async def call(self: aiosqlite.Cursor, *arguments: Any) -> Any:
        try:
            return await method(self, *arguments)
        except BaseException:
            with suppress(Exception):  # a connection that is closed has closed its cursors
                await self.close()
            raise

    return call


if __name__ == "__main__":
    close_what_fails()
    lock_first()
    check_schemas_once()
    bound_bodies()
    guard_its_doors()
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)
