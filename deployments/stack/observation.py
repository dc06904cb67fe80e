"""What is told of the local stack: `status`, and the `environment` that a process needs to use it."""

from concurrent.futures import ThreadPoolExecutor

from blocks import names
from deployments.settings import Settings
from deployments.stack import processes
from deployments.stack.exceptions import NoAnswerError, SupervisorError
from deployments.stack.models import PartRecord, PartStatus, StackStatus
from deployments.stack.parts import PART_NAMES, Part, ask_part, recall
from deployments.stack.places import Places
from deployments.stack.supervision import Supervised, Supervisor, restarts

_STARTING_S = 60.0  # a process younger than this that gives no answer yet is starting
_RAY_ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # Ray's only switch to bind to 127.0.0.1 alone


def status(settings: Settings, ask: bool = True) -> StackStatus:
    """The stack as it is now; with `ask`, each part is asked one question (a few seconds at most)."""
    places = Places(settings.home)
    record = places.load_record()
    if record is None:
        stopped = {name: PartStatus(state="stopped") for name in PART_NAMES}
        return StackStatus(home=str(places.home), parts=stopped)
    parts = _states(record.parts, places)
    if ask:
        with ThreadPoolExecutor(len(parts)) as pool:
            asked = pool.map(lambda name: _asked(recall(name, record.parts[name]), parts[name], settings), parts)
            parts = dict(zip(parts, asked, strict=True))
    return StackStatus(
        prefect=record.parts["prefect"].url,
        nats=record.parts["nats"].url,
        llm=record.parts["llm"].url,
        ray=record.parts["ray"].url,
        home=str(places.home),
        model=record.model,
        simulated=record.simulated,
        database=record.database,
        prefix=record.prefix,
        parts=parts,
    )


MAX_PARAMETERS = 64 * 1024 * 1024
"""Bytes of a flow run's parameters, and so of an agenda."""


def environment(status: StackStatus) -> dict[str, str]:
    """The variables that a process needs to use this stack; Ray's must be set before `ray` is imported.

    Parts that are not known have no variable; credentials that a URL carries are in it.
    """
    places = Places.of(status.home)
    values = {
        "CONCLAVE_HOME": status.home,
        "NATS_URL": status.nats,
        "PREFECT_API_URL": status.prefect,
        "RAY_ADDRESS": status.ray,
        "VLLM_URL": status.llm,
        "VLLM_MODEL": status.model,
        names.VARIABLE: status.prefix,
    }
    environ = {name: value for name, value in values.items() if value}
    if _is_ours(status, "prefect"):
        environ["PREFECT_HOME"] = str(places.prefect_home)
        # Its 512 KiB for the parameters of a run would be the bound of an agenda; server and client ask for it.
        environ["PREFECT_SERVER_API_MAX_PARAMETER_SIZE"] = str(MAX_PARAMETERS)
    if _is_ours(status, "ray"):
        environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(places.ray_token)}
        environ |= {"RAY_AUTH_TOKEN": "", **_RAY_ON_LOOPBACK}  # a token of the user's own would come first
    return environ


def supervised(places: Places) -> dict[str, Supervised] | None:
    """The parts as the home's supervisor sees them, or None if no supervisor answers."""
    try:
        return Supervisor(places.socket).parts()
    except SupervisorError:
        return None


def _is_ours(status: StackStatus, part: str) -> bool:
    known = status.parts.get(part)
    return known is not None and known.url is not None and known.state != "external"


def _states(records: dict[str, PartRecord], places: Places) -> dict[str, PartStatus]:
    """The states without asking any part; of what a dead supervisor left, it says so."""
    seen = supervised(places)
    orphans = processes.family(places.home).parts if seen is None else {}
    again = restarts(places) if seen is not None else {}
    found: dict[str, PartStatus] = {}
    for name, record in records.items():
        if record.external:
            found[name] = PartStatus(state="external", url=record.url)
            continue
        told = PartStatus(state="stopped", url=record.url, log=str(places.log(name)))
        if name in orphans:
            pid, reason = orphans[name].pid, "its supervisor is gone: conclave up or down will end it"
            told = told.model_copy(update={"state": "failed", "pid": pid, "reason": reason})
        elif seen is not None and name in seen:
            part = seen[name]
            update = {"state": part.state, "pid": part.pid, "reason": part.reason, "uptime_s": part.uptime_s}
            told = told.model_copy(update={**update, "restarts": again.get(name, 0)})
        found[name] = told
    return found


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
