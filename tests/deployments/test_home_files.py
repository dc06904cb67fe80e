"""Files of a home that are lost, emptied, cut off or of no use: noticed, and said in a sentence or made anew."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployments.settings import Settings, load_settings
from deployments.stack import StackError, check_keys, status
from deployments.stack.exceptions import StackRecordError
from deployments.stack.lifecycle import _usable_record
from deployments.stack.models import StackRecord
from deployments.stack.observation import changed_keys
from deployments.stack.paths import RUNTIME, StackPaths, write_private
from deployments.stack.processes import Family
from deployments.stack.supervision import _WITH_ITS_ENVIRONMENT
from tests.deployments.commands import OF_THE_STACK

CONCLAVE = str(Path(sys.executable).with_name("conclave"))
NAMES = ("nats", "llm", "prefect", "ray", "gateway")
PARTS = {name: {"url": f"http://127.0.0.1:{port}"} for port, name in enumerate(NAMES, 1)}
HUSH = "a-key-that-nobody-is-told"
WHOLE = {"parts": PARTS, "llm_key": HUSH}


@pytest.fixture(autouse=True)
def nothing_given_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of a shell, or of the stack of other tests, points a command elsewhere."""
    for name in OF_THE_STACK:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def paths(tmp_path: Path) -> Iterator[StackPaths]:
    """A home with its keys."""
    found = StackPaths.of(tmp_path / "home")
    found.create()
    yield found
    for entry in found.runtime.glob("*"):
        entry.unlink()
    found.runtime.rmdir()


@pytest.fixture
def settings(paths: StackPaths) -> Settings:
    """Settings of that home."""
    return load_settings({"CONCLAVE_HOME": str(paths.home)})


# --- what is remembered of a stack ------------------------------------------------------------------------

UNUSABLE = {
    "empty": ("", "it is empty"),
    "cut off": (json.dumps(WHOLE)[:60], "it is no JSON"),
    "no JSON": ("\x00\x01", "it is no JSON"),
    "no UTF-8": ("\udcff", "it is no JSON"),
    "a list": ("[]", "Input should be an object"),
    "nothing in it": ("{}", "parts: Field required"),
    "a part missing": (json.dumps({**WHOLE, "parts": {"nats": PARTS["nats"]}}), "say where llm, prefect, ray is"),
    "a part without a place": (
        json.dumps({"parts": {**PARTS, "ray": {}}, "llm_key": HUSH}),
        "parts.ray.url: Field req",
    ),
    "another type": (json.dumps({**WHOLE, "llm_key": [HUSH]}), "llm_key: Input should be a valid string"),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_a_record_that_cannot_be_used_is_told_in_a_sentence(paths: StackPaths, settings: Settings, kind: str) -> None:
    """Without anything of its values, among which are keys; `up` begins anew."""
    text, why = UNUSABLE[kind]
    paths.record.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(StackRecordError) as raised:
        status(settings)
    said = str(raised.value)
    assert said.startswith(f"{paths.record} cannot be used: ")
    assert why in said
    assert "`conclave up` ends what it was about and starts the stack anew" in said
    assert HUSH not in said
    told: list[str] = []
    assert _usable_record(paths, told.append) is None
    assert told == [said]
    assert status(settings).prefect is None


@pytest.mark.servers
@pytest.mark.parametrize("verb", ["status", "env", "doctor", "result x", "watch x", "councils list", "dead list"])
def test_every_verb_says_so_in_a_line(paths: StackPaths, verb: str) -> None:
    """And ends with the code for a stack that is not up."""
    paths.record.write_text("{")
    environ = {**os.environ, "CONCLAVE_HOME": str(paths.home)}
    done = subprocess.run([CONCLAVE, *verb.split()], env=environ, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (6, "")
    assert done.stderr.splitlines() == [
        f"conclave: {paths.record} cannot be used: it is no JSON; `conclave up` ends what it was about and starts the "
        "stack anew; the data stays"
    ]


@pytest.mark.servers
def test_down_needs_no_record(paths: StackPaths) -> None:
    """It finds processes by their mark; the record goes."""
    paths.record.write_text("{")
    environ = {**os.environ, "CONCLAVE_HOME": str(paths.home)}
    done = subprocess.run([CONCLAVE, "down"], env=environ, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.splitlines()) == (0, ["nothing was running"])
    assert not paths.record.exists()
    paths.runtime.mkdir(mode=0o700)


def test_a_record_of_an_older_or_a_later_version_is_read(paths: StackPaths, settings: Settings) -> None:
    """Fields that it lacks have their defaults, and those that are not known are passed over."""
    write_private(paths.record, json.dumps({"parts": PARTS, "voice": "loud"}))
    told = status(settings, ask=False)
    assert (told.nats, told.problems) == ("http://127.0.0.1:1", [])


# --- keys -------------------------------------------------------------------------------------------------

KEYS = ("nats_password", "nats_events_password", "llm_key", "prefect_auth", "ray_token", "token")


@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize("text", ["", " \n", "conclave:", "conclave:0123", "0123456789abcdef", "\x1b" * 64, None])
def test_a_key_that_is_not_whole_is_made_anew(paths: StackPaths, name: str, text: str | None) -> None:
    """One that was cut off would be guessed; the others stay."""
    before = {key.name: key.read_text() for key in paths.keys}
    key = paths.home / name
    if text is None:
        key.unlink()
    else:
        key.write_text(text)
    paths.create()
    after = {key.name: key.read_text() for key in paths.keys}
    assert {kept: before[kept] == after[kept] for kept in KEYS} == {kept: kept != name for kept in KEYS}
    assert len(after[name]) == len(before[name])
    assert key.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", KEYS)
def test_a_key_that_is_not_the_one_its_part_began_with_is_told(
    paths: StackPaths, settings: Settings, name: str
) -> None:
    """By `status`, and by whatever would use it; not one whose part is from outside, nor by an older record."""
    record = StackRecord.model_validate({"parts": PARTS, "keys": paths.digests()})
    write_private(paths.record, record.model_dump_json())
    assert changed_keys(record, paths) is None
    (paths.home / name).write_text("")
    told = status(settings, ask=False)
    assert told.problems == [
        f"{name} in {paths.home} is not what the stack was started with: emptied, cut off or changed; `conclave down`, "
        "then `conclave up --detach` makes it anew; what is on record stays"
    ]
    assert not told.is_up
    with pytest.raises(StackError, match=name):
        check_keys(told)
    external = {part: {**place, "external": True} for part, place in PARTS.items()}
    assert changed_keys(StackRecord.model_validate({"parts": external, "keys": record.keys}), paths) is None
    assert changed_keys(StackRecord.model_validate({"parts": PARTS}), paths) is None


def test_what_is_remembered_of_a_key_does_not_tell_it(paths: StackPaths) -> None:
    """It is a digest, and a short one."""
    kept = json.dumps(paths.digests())
    assert not any(key.read_text()[:16] in kept for key in paths.keys)


# --- what lies below /tmp ---------------------------------------------------------------------------------


@pytest.mark.servers
def test_no_cleaner_enters_the_directory_for_sockets_while_a_part_runs(paths: StackPaths) -> None:
    """systemd-tmpfiles leaves what somebody holds a lock on, with all that is below it."""
    (paths.environments / "ray").write_text("ITS=own\n")
    environ = {**os.environ, RUNTIME: str(paths.runtime)}
    command = ["sh", "-c", _WITH_ITS_ENVIRONMENT, "ray", "sh", "-c", 'echo "$ITS"; exec sleep 60']
    opened = os.open(paths.runtime, os.O_RDONLY)
    part = subprocess.Popen(command, cwd=paths.home, env=environ, stdout=subprocess.PIPE, text=True)
    try:
        assert part.stdout is not None
        assert part.stdout.readline() == "own\n"
        with pytest.raises(BlockingIOError):
            fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
    finally:
        part.kill()
        part.communicate()
    fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
    os.close(opened)


@pytest.mark.servers
@pytest.mark.parametrize("place", ["/nowhere", ""])
def test_a_part_starts_where_nothing_can_be_locked(paths: StackPaths, place: str) -> None:
    """The lock is for the rare cleaner, the part for everybody."""
    (paths.environments / "ray").write_text("")
    command = ["sh", "-c", _WITH_ITS_ENVIRONMENT, "ray", "echo", "here"]
    environ = {**os.environ, RUNTIME: place}
    assert subprocess.run(command, cwd=paths.home, env=environ, capture_output=True, text=True).stdout == "here\n"


@pytest.mark.parametrize("lost", ["nothing", "socket", "session"])
def test_what_was_lost_below_tmp_is_told(
    paths: StackPaths, settings: Settings, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    """Parts go on: they run, and cannot be started again."""
    from deployments.stack import observation

    process: Any = type("Process", (), {"pid": os.getpid()})()
    parts = dict.fromkeys(PARTS, process)
    monkeypatch.setattr(observation.processes, "family", lambda _home: Family(process, parts, {process}))
    write_private(paths.record, json.dumps({"parts": PARTS}))
    session = paths.ray_sessions / "session_latest"
    if lost != "socket":
        paths.socket.touch()
    if lost != "session":
        session.mkdir(parents=True)
    told = status(settings, ask=False)
    if session.exists():
        session.rmdir()
        paths.ray_sessions.rmdir()
    words = {"nothing": [], "socket": [str(paths.socket)], "session": [str(paths.ray_sessions)]}[lost]
    assert [word for problem in told.problems for word in words if f"{word} " in problem] == words
    assert len(told.problems) == len(words)
    assert {part.state for part in told.parts.values()} == {"running"}
    assert all("something cleans up there" in problem for problem in told.problems)
