"""`up` and `down` of the local stack.

One lock per home orders them. The record on disk is written before anything is started, so that whatever an
interrupted command leaves can be found; what a killed supervisor leaves is found by its mark (`processes`).
"""

import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial

from blocks.urls import server_root, without_credentials
from deployments.settings import Settings, load_settings
from deployments.stack import processes
from deployments.stack.environments import supervisors_environment, write_environments
from deployments.stack.exceptions import StackError, StackOptionsError, StackRecordError
from deployments.stack.interruption import terminable, undisturbed
from deployments.stack.models import Database, PartRecord, StackRecord, StackStatus, UpOptions
from deployments.stack.observation import KEYS_OF_EXTERNAL, changed_keys, status, supervised, without_own
from deployments.stack.parts import SIMULATOR_OWNER, WORKER, WORKER_STOP_S, Part, ask_part, nats_config, plan, recall
from deployments.stack.paths import StackPaths, locked, mark_log, private_files, read_key, writable, write_private
from deployments.stack.ports import pass_on_claims
from deployments.stack.probes import in_work
from deployments.stack.readiness import EXTERNAL_TIMEOUT_S, Answers, wait_for
from deployments.stack.supervision import Supervisor, start_supervisor

Report = Callable[[str], None]
Provision = Callable[[StackStatus], None]

_STOP_TIMEOUT_S = 75.0  # all parts' stop_s together, and a little; the worker's drain comes on top
_LOCK_TIMEOUT_S = 240.0


def up(
    options: UpOptions, report: Report, settings: Settings | None = None, provision: Provision | None = None
) -> StackStatus:
    """Start what is not there yet and wait until every part answers; what is there already is left alone.

    `provision` puts into the stack what its users need; it is part of coming up. Raises a `StackError`, or what
    `provision` raises. Then, and when interrupted (SIGINT, SIGTERM), nothing that was started here stays.
    """
    settings = settings or load_settings()
    paths = StackPaths.of(settings.home)
    with private_files(), writable(paths):
        paths.create()
    settings = without_own(settings, paths)
    with private_files(), terminable(), writable(paths), locked(paths, _LOCK_TIMEOUT_S, report):
        paths.create()  # again: while the lock was waited for, a `down` may have removed some of it
        record = _usable_record(paths, report)
        if record is not None and supervised(paths) is not None:
            _complete(record, options, settings, paths, report)
            return _ready(settings, paths, report, provision)
        if processes.end(paths.home, _patience(settings), report):
            report("ended what an earlier stack had left running")
        try:
            _start(options, settings, paths, report)
            return _ready(settings, paths, report, provision)
        except BaseException:
            with undisturbed():
                _tear_down(settings, paths, report)
            raise


def down(settings: Settings, report: Report) -> bool:
    """End everything that `up` started, and nothing else; the data stays. Says whether there was anything.

    Raises `StackBusyError` while an `up` is at work, and `StackError` if a process cannot be ended.
    """
    paths = StackPaths.of(settings.home)
    if not paths.home.is_dir():
        return False
    with locked(paths, _LOCK_TIMEOUT_S, report):
        return _tear_down(settings, paths, report)


def _usable_record(paths: StackPaths, report: Report) -> StackRecord | None:
    """What is remembered of the stack; None, and the file is gone, where nobody can read it any more."""
    try:
        return paths.load_record()
    except StackRecordError as error:
        report(str(error))
        paths.record.unlink(missing_ok=True)
        return None


def _start(options: UpOptions, settings: Settings, paths: StackPaths, report: Report) -> None:
    """Start a stack where none is; parts from outside have to answer before anything is started."""
    parts = plan(settings, options)
    ours = [part for part in parts if not part.external]
    external = [part for part in parts if part.external]
    record = _record(parts, settings, options)
    question = partial(ask_part, settings=settings)
    if external:
        report(f"asking {_listed(external)}, given from outside")
        answers = wait_for(external, question, paths, EXTERNAL_TIMEOUT_S, report)
        _note_models(answers, options, settings, record)
    write_private(paths.record, record.model_dump_json(indent=2))
    if ours:
        report(f"starting {_listed(ours)} in {paths.home}")
    paths.clear_runtime()
    if not record.parts["nats"].external:
        _prepare_nats(record.parts["nats"].url, settings, paths)
    write_environments(settings, paths, record)
    start_supervisor(ours, paths, supervisors_environment(settings))
    supervisor = Supervisor(paths.socket)
    pass_on_claims(supervisor.pid())
    for part in _core(ours):
        mark_log(paths.log(part.name))
        supervisor.start(part.name)
    answers = wait_for(_core(ours), question, paths, settings.start_timeout_s, report)
    if options.worker:  # it is busy importing while the stack is provisioned
        mark_log(paths.log(WORKER))
        supervisor.start(WORKER)
    _note_models(answers, options, settings, record)
    write_private(paths.record, record.model_dump_json(indent=2))


def _record(parts: list[Part], settings: Settings, options: UpOptions) -> StackRecord:
    """What is remembered of a new stack; the model is noted once the model server has answered."""
    record = StackRecord(
        parts={part.name: PartRecord(url=part.url, external=part.external, grpc=part.grpc) for part in parts},
        simulated=any(part.simulated for part in parts),
        open=options.open,
        database=_database(settings),
        prefix=settings.prefix,
        keys=StackPaths.of(settings.home).digests(),
    )
    for part in parts:
        if part.external:
            record.given |= _given(KEYS_OF_EXTERNAL.get(part.name, ()))
    if settings.llm_api_key:
        record.llm_key = settings.llm_api_key.get_secret_value()
    return record


def _given(names: Iterable[str]) -> dict[str, str]:
    """Those of the variables that have a value now."""
    return {name: os.environ[name] for name in names if os.environ.get(name)}


def _database(settings: Settings) -> Database | None:
    """What our Prefect keeps its data in; None where Prefect is given from outside."""
    if settings.prefect_api_url:
        return None
    return "postgresql" if settings.prefect_database else "sqlite"


def _listed(parts: list[Part]) -> str:
    return ", ".join(part.name for part in parts)


def _prepare_nats(url: str, settings: Settings, paths: StackPaths) -> None:
    paths.adopt_record()
    password = read_key(paths.events_password) or ""
    write_private(paths.nats_config, nats_config(url, settings.nats_sync, password))


def _core(parts: list[Part]) -> list[Part]:
    """All but the worker, which is ready once the stack is provisioned."""
    return [part for part in parts if part.name != WORKER]


def _ready(settings: Settings, paths: StackPaths, report: Report, provision: Provision | None) -> StackStatus:
    """The stack that has come up, provisioned, with its worker at work."""
    told = status(settings)
    if told.simulated:
        report("llm is the SIMULATOR: its answers are made up, for rehearsals and never for decisions")
    if provision is not None:
        provision(told)
    record = paths.load_record()
    worker = record.parts.get(WORKER) if record else None
    if worker is None:
        return told
    question = partial(ask_part, settings=settings)
    wait_for([recall(WORKER, worker)], question, paths, settings.start_timeout_s, report)
    return status(settings)


def _complete(record: StackRecord, options: UpOptions, settings: Settings, paths: StackPaths, report: Report) -> None:
    """Start again what has stopped of a stack that is up, and wait for all of it."""
    _refuse_another(record, options, settings)
    if changed := changed_keys(record, paths):
        raise StackError(changed)
    report(f"found the stack of {paths.home}")
    supervisor = Supervisor(paths.socket)
    for name, seen in supervisor.parts().items():
        if seen.state in ("stopped", "failed"):
            report(f"starting {name} again")
            supervisor.start(name)
    parts = _core([recall(name, part) for name, part in record.parts.items()])
    question = partial(ask_part, settings=settings)
    answers = wait_for(parts, question, paths, settings.start_timeout_s, report)
    if record.model not in answers["llm"] or options.model not in (None, record.model):
        _note_models(answers, options, settings, record)
        write_private(paths.record, record.model_dump_json(indent=2))


def _refuse_another(record: StackRecord, options: UpOptions, settings: Settings) -> None:
    """Raise `StackOptionsError` if the stack that is up is not the one that is asked for."""
    other = options.llm_url and server_root(options.llm_url) != record.parts["llm"].url
    if other or (options.simulate and not record.simulated):
        raise StackOptionsError("this home's stack is up with another model server: conclave down comes first")
    if options.open and not record.open:
        raise StackOptionsError("this home's gateway is up and asks for tokens: conclave down comes first")
    if settings.prefix not in (None, record.prefix):
        has = f"the prefix {record.prefix!r}" if record.prefix else "no prefix"
        raise StackOptionsError(f"this home's stack is up with {has} in Prefect: conclave down comes first")


def _note_models(answers: Answers, options: UpOptions, settings: Settings, record: StackRecord) -> None:
    """Note which model to ask for: the one asked for, which must be there, else the first one listed."""
    listed = answers.get("llm")
    if listed is None:
        return
    record.simulated = SIMULATOR_OWNER in listed.values()
    wanted = options.model or settings.llm_model
    if _may_have(listed, wanted):
        record.model = wanted
    elif listed and not options.model and (record.simulated or not wanted):
        record.model = next(iter(listed))
    else:
        url, names = without_credentials(record.parts["llm"].url), ", ".join(listed)
        raise StackOptionsError(f"{url} does not serve {wanted or 'any model'}; it lists: {names}")


def _may_have(listed: dict[str, str], wanted: str | None) -> bool:
    """Whether a server may have a model: it lists it, or has no list."""
    return wanted in listed or bool(wanted and not listed)


def _patience(settings: Settings) -> float:
    return _STOP_TIMEOUT_S + settings.worker_drain_s + WORKER_STOP_S


def _tear_down(settings: Settings, paths: StackPaths, report: Report) -> bool:
    if processes.family(paths.home).everyone:
        report(f"stopping the stack of {paths.home}")
        _tell_of_drain(settings, paths, report)
    ended = processes.end(paths.home, _patience(settings), report)
    paths.record.unlink(missing_ok=True)
    shutil.rmtree(paths.environments, ignore_errors=True)
    shutil.rmtree(paths.runtime, ignore_errors=True)
    return ended


def _tell_of_drain(settings: Settings, paths: StackPaths, report: Report) -> None:
    """Say why the end of a worker may take a while."""
    with suppress(StackRecordError):
        _tell_of_work(paths.load_record(), settings, report)


def _tell_of_work(record: StackRecord | None, settings: Settings, report: Report) -> None:
    worker = record.parts.get(WORKER) if record else None
    running = in_work(worker.url) if worker and worker.url else 0
    if running:
        report(
            f"the worker is at {running} request{'s' if running > 1 else ''}, which it has"
            f" {settings.worker_drain_s:g} s to finish; the next `conclave up` goes on with what is left"
        )
