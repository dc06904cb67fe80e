"""What is told of the local stack: `status`, and the `environment` that a process needs to use it."""

import os
from collections.abc import Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Literal
from urllib.parse import urlsplit

from blocks import names
from deployments.settings import Settings
from deployments.stack import processes
from deployments.stack.exceptions import NoAnswerError, StackError, SupervisorError
from deployments.stack.models import PartRecord, PartStatus, StackRecord, StackStatus
from deployments.stack.parts import EVENTS_USER, GATEWAY, PART_NAMES, Part, ask_part, recall
from deployments.stack.paths import StackPaths, read_key
from deployments.stack.ports import refuse_stranger
from deployments.stack.probes import basic
from deployments.stack.proxies import past_proxies
from deployments.stack.supervision import Supervised, Supervisor, restarts

_STARTING_S = 60.0  # a process younger than this that gives no answer yet is starting
_RAY_ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # Ray's only switch to bind to 127.0.0.1 alone


def status(settings: Settings, ask: bool = True) -> StackStatus:
    """The stack as it is now; with `ask`, each part is asked one question (a few seconds at most)."""
    paths = StackPaths(settings.home)
    record = paths.load_record()
    if record is None:
        stopped = {name: PartStatus(state="stopped") for name in PART_NAMES}
        return StackStatus(home=str(paths.home), parts=stopped)
    parts = _states(record.parts, paths)
    problems = _problems(record, paths, {name for name, part in parts.items() if part.state == "running"})
    if ask:
        with ThreadPoolExecutor(len(parts)) as pool:
            asked = pool.map(lambda name: _asked(recall(name, record.parts[name]), parts[name], settings), parts)
            parts = dict(zip(parts, asked, strict=True))
    gateway = record.parts.get(GATEWAY)  # older versions had none
    return StackStatus(
        gateway=gateway.url if gateway else None,
        prefect=record.parts["prefect"].url,
        nats=record.parts["nats"].url,
        llm=record.parts["llm"].url,
        ray=record.parts["ray"].url,
        home=str(paths.home),
        model=record.model,
        simulated=record.simulated,
        open=record.open,
        database=record.database,
        prefix=record.prefix,
        parts=parts,
        problems=problems,
    )


AGAIN = "`conclave down`, then `conclave up --detach` makes it anew; what is on record stays"
CLEANED = "something cleans up there"
KEYS_OF_PART = {
    "nats": ("nats_password", "nats_events_password"),
    "llm": ("llm_key",),
    "prefect": ("prefect_auth",),
    "ray": ("ray_token",),
    GATEWAY: ("token",),
}
"""Names of the key files of our own parts."""


def _problems(record: StackRecord, paths: StackPaths, running: Set[str]) -> list[str]:
    """What is wrong with the files that a stack was started with, of which these parts run, in sentences."""
    found = [changed_keys(record, paths)]
    if running and not paths.socket.exists():
        found.append(f"the supervisor's socket {paths.socket} is gone, {CLEANED}: no part is started again; {AGAIN}")
    if "ray" in running and not (paths.ray_sessions / "session_latest").exists():
        found.append(f"Ray's files in {paths.ray_sessions} are gone, {CLEANED}: no agent host can start; {AGAIN}")
    return [problem for problem in found if problem]


def changed_keys(record: StackRecord, paths: StackPaths) -> str | None:
    """A sentence about the keys that are not those that the parts were started with; None where all are."""
    now = paths.digests()
    ours = [names for part, names in KEYS_OF_PART.items() if part in record.parts and not record.parts[part].external]
    names = [name for name in chain.from_iterable(ours) if record.keys.get(name, now[name]) != now[name]]
    if not names:
        return None
    which = f"{', '.join(names)} in {paths.home} {'is' if len(names) == 1 else 'are'}"
    return f"{which} not what the stack was started with: emptied, cut off or changed; {AGAIN}"


KEYS_OF_EXTERNAL = {
    "prefect": ("PREFECT_API_AUTH_STRING", "PREFECT_API_KEY"),
    "ray": ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"),
}
"""Variables with keys for parts from outside, which `up` keeps in the home, so that later commands find them.

That of a NATS stands in its URL, that of a model server in its block.
"""
MAX_PARAMETERS = 64 * 1024 * 1024
"""Bytes of a flow run's parameters, and so of an agenda."""


def environment(status: StackStatus) -> dict[str, str]:
    """The variables that a process needs to use this stack, keys included; before `ray` is imported.

    Parts that are not known have no variable. They come from the record and the key files of the home. Raises
    `NoAnswerError` where another user listens at a port of ours, which would be sent the key.
    """
    paths = StackPaths.of(status.home)
    record = paths.load_record()
    if record is None:
        return {"CONCLAVE_HOME": status.home}
    parts = record.parts
    _refuse_strangers(parts)
    values = {
        **_gateways(parts, paths),
        "CONCLAVE_HOME": status.home,
        "NATS_URL": parts["nats"].url,
        "PREFECT_API_URL": parts["prefect"].url,
        "RAY_ADDRESS": parts["ray"].url,
        "VLLM_URL": parts["llm"].url,
        "VLLM_MODEL": record.model,
        names.VARIABLE: record.prefix,
    }
    if not parts["prefect"].external:
        values["PREFECT_HOME"] = str(paths.prefect_home)
        values["PREFECT_API_AUTH_STRING"] = read_key(paths.prefect_auth)
        # Its 512 KiB for the parameters of a run would be the bound of an agenda; server and client ask for it.
        values["PREFECT_SERVER_API_MAX_PARAMETER_SIZE"] = str(MAX_PARAMETERS)
    if not parts["llm"].external:
        values["CONCLAVE_LLM_API_KEY"] = record.llm_key or read_key(paths.llm_key)
    environ = {name: value for name, value in values.items() if value} | past_proxies(os.environ)
    # A key that the shell has now is newer than the one that `up` was given.
    environ |= {name: value for name, value in record.given.items() if not os.environ.get(name)}
    if not parts["ray"].external:
        environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(paths.ray_token)}
        environ |= {"RAY_AUTH_TOKEN": "", **_RAY_ON_LOOPBACK}  # a token of the user's own would come first
    return environ


def _gateways(parts: Mapping[str, PartRecord], paths: StackPaths) -> dict[str, str | None]:
    """Where the gateway is, and the home's token; nothing of a stack that an older version started."""
    if GATEWAY not in parts:
        return {}
    gateway = parts[GATEWAY]
    return {
        "CONCLAVE_URL": gateway.url,
        "CONCLAVE_GRPC_TARGET": gateway.grpc,
        "CONCLAVE_TOKEN": read_key(paths.token),
    }


def check_keys(status: StackStatus) -> None:
    """Raise `StackError` where a key of the home is not the one that its part was started with."""
    paths = StackPaths.of(status.home)
    record = paths.load_record()
    if record is not None and (changed := changed_keys(record, paths)):
        raise StackError(changed)


def _refuse_strangers(parts: Mapping[str, PartRecord]) -> None:
    for part in parts.values():
        if not part.external:
            refuse_stranger(part.url)
        if part.grpc is not None:
            refuse_stranger(part.grpc)


def authorization(status: StackStatus, part: Literal["prefect", "llm"]) -> dict[str, str]:
    """The header with which this part is asked over HTTP; none where no key is known."""
    told = {**os.environ, **environment(status)}
    if part == "prefect":
        value = basic(told.get("PREFECT_API_AUTH_STRING"))
    else:
        key = told.get("CONCLAVE_LLM_API_KEY")
        value = f"Bearer {key}" if key else None
    return {"Authorization": value} if value else {}


def events_url(status: StackStatus) -> str | None:
    """NATS' URL for publishers and listeners outside, credentials included; None where NATS is not ours."""
    paths = StackPaths.of(status.home)
    record, password = paths.load_record(), read_key(paths.events_password)
    if record is None or record.parts["nats"].external or password is None:
        return None
    return f"nats://{EVENTS_USER}:{password}@{urlsplit(record.parts['nats'].url).netloc.rpartition('@')[2]}"


def without_own(settings: Settings, paths: StackPaths) -> Settings:
    """The settings without what `conclave env` said of this home's own parts, and a shell has kept.

    What is on loopback and carries this home's own key is no part from outside.
    """
    model_key = settings.llm_api_key and settings.llm_api_key.get_secret_value()
    own = {
        "nats_url": urlsplit(settings.nats_url or "").password == read_key(paths.nats_password),
        "prefect_api_url": os.environ.get("PREFECT_API_AUTH_STRING") == read_key(paths.prefect_auth),
        "ray_address": os.environ.get("RAY_AUTH_TOKEN_PATH") == str(paths.ray_token),
        "llm_url": model_key == read_key(paths.llm_key),
    }
    update = {field: None for field, same in own.items() if same and "127.0.0.1:" in (getattr(settings, field) or "")}
    if own["llm_url"]:
        update["llm_api_key"] = None
    return settings.model_copy(update=update)


def supervised(paths: StackPaths) -> dict[str, Supervised] | None:
    """The parts as the home's supervisor sees them, or None if no supervisor answers."""
    try:
        return Supervisor(paths.socket).parts()
    except SupervisorError:
        return None


def _states(records: dict[str, PartRecord], paths: StackPaths) -> dict[str, PartStatus]:
    """The states without asking any part."""
    seen = supervised(paths)
    family = processes.family(paths.home) if seen is None else None
    again = restarts(paths) if seen is not None else {}
    found: dict[str, PartStatus] = {}
    for name, record in records.items():
        told = PartStatus(state="stopped", url=record.url, log=str(paths.log(name)), grpc=record.grpc)
        if record.external:
            told = PartStatus(state="external", url=record.url)
        elif family is not None:
            told = told.model_copy(update=_unsupervised(name, family))
        elif seen is not None and name in seen:
            part = seen[name]
            update = {"state": part.state, "pid": part.pid, "reason": part.reason, "uptime_s": part.uptime_s}
            told = told.model_copy(update={**update, "restarts": again.get(name, 0)})
        found[name] = told
    return found


def _unsupervised(name: str, family: processes.Family) -> dict[str, object]:
    """What is known of a part whose supervisor cannot be asked.

    It runs where that is alive, but for want of its socket; what a dead one left is told as such.
    """
    if name not in family.parts:
        return {}
    pid = family.parts[name].pid
    if family.supervisor is not None:
        return {"state": "running", "pid": pid}
    return {"state": "failed", "pid": pid, "reason": "its supervisor is gone: conclave up or down will end it"}


def _asked(part: Part, told: PartStatus, settings: Settings) -> PartStatus:
    """The part's status after one question, if there is anyone to answer it."""
    if told.state in ("stopped", "failed"):
        return told
    try:
        ask_part(part, settings)
    except NoAnswerError as error:
        age_s = processes.age_s(told.pid) if told.pid else None
        state = "starting" if age_s is not None and age_s < _STARTING_S else told.state
        return told.model_copy(update={"state": state, "answers": False, "reason": f"no answer: {error}"})
    return told.model_copy(update={"state": "external" if part.external else "running", "answers": True})
