"""The local stack: its settings, ports and configuration, and one whole stack that is broken and ended."""

import configparser
import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from deployments.settings import Settings, SettingsError, load_settings
from deployments.stack import StackStatus, UpOptions, down, environment, ports, status, up
from deployments.stack.environments import supervisors_environment, write_environments
from deployments.stack.exceptions import (
    ExternalPartError,
    NoAnswerError,
    StackBusyError,
    StackError,
    StackOptionsError,
)
from deployments.stack.models import PartRecord, PartStatus, StackRecord, without_credentials
from deployments.stack.observation import without_own
from deployments.stack.parts import Part, ask_part, nats_config, plan
from deployments.stack.paths import StackPaths, is_private, locked, log_tail, mark_log, write_private
from deployments.stack.ports import free_port, is_free, pass_on_claims
from deployments.stack.probes import ask_prefect
from deployments.stack.processes import family
from deployments.stack.supervision import configuration

OUTSIDE = (
    "NATS_URL",
    "RAY_ADDRESS",
    "PREFECT_API_URL",
    "VLLM_URL",
    "VLLM_MODEL",
    "CONCLAVE_VLLM",
    "CONCLAVE_VLLM_ARGS",
)


@pytest.fixture(autouse=True)
def nothing_given_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the developer's own shell points the stack elsewhere."""
    for name in OUTSIDE:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of a stack of its own."""
    return load_settings({"CONCLAVE_HOME": str(tmp_path / "home")})


def silent(_line: str) -> None:
    """A report that nobody reads."""


# --- settings ---------------------------------------------------------------------------------------------


def test_settings_have_the_documented_defaults() -> None:
    """Without any variable the deadline, the clean-up and the home are the documented ones."""
    settings = load_settings({})
    assert (settings.deadline_s, settings.cleanup_s, settings.start_timeout_s) == (300, 3600, 180)
    assert settings.home.name == "conclave"
    assert settings.nats_url is None


def test_the_home_follows_the_state_directory_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """XDG_STATE_HOME moves the default home."""
    monkeypatch.setenv("XDG_STATE_HOME", "/somewhere")
    assert load_settings({}).home == Path("/somewhere/conclave")


def test_an_empty_variable_counts_as_unset() -> None:
    """A variable that a compose file leaves empty does not become a value."""
    assert load_settings({"NATS_URL": "", "DELIBERATION_TIMEOUT": ""}) == load_settings({})


@pytest.mark.parametrize(
    ("name", "value", "right"),
    [
        ("DELIBERATION_TIMEOUT", "soon", "seconds per item"),
        ("DELIBERATION_TIMEOUT", "-1", "seconds per item"),
        ("DELIBERATION_CLEANUP", "nan", "seconds that a finished status is kept"),
        ("RAY_ADDRESS", "auto", "host:port"),
        ("NATS_URL", "127.0.0.1:4222", "nats://127.0.0.1:4222"),
        ("VLLM_URL", "localhost", "http://127.0.0.1:8000"),
        ("CONCLAVE_NATS_SYNC", "never", "always"),
        ("CONCLAVE_VLLM_ARGS", "--x 'open", "--max-model-len 8192"),
        ("CONCLAVE_BATCHES", "/srv,ftp://host/a", "/srv/batches,s3://bucket/batches"),
    ],
)
def test_a_bad_value_is_refused_with_its_variable_and_what_would_be_right(name: str, value: str, right: str) -> None:
    """The error names the variable, the value and a right one."""
    with pytest.raises(SettingsError) as caught:
        load_settings({name: value})
    for part in (name, value, right):
        assert part in str(caught.value)


def test_places_of_batches_are_absolute_folders_and_urls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A relative one is meant from where `conclave up` was typed, and parts run in the home."""
    monkeypatch.chdir(tmp_path)
    assert load_settings({}).batches == ()
    found = load_settings({"CONCLAVE_BATCHES": "in, s3://bucket/in,,/srv/../etc"}).batches
    assert found == (str(tmp_path / "in"), "s3://bucket/in", "/etc")
    with pytest.raises(SettingsError) as caught:
        load_settings({"CONCLAVE_BATCHES": "s3://ann:hush@bucket/in"})
    assert "hush" not in str(caught.value)


def test_the_api_key_shows_nowhere() -> None:
    """Neither the text of the settings nor an error tells the secret."""
    settings = load_settings({"CONCLAVE_LLM_API_KEY": "hush"})
    assert "hush" not in repr(settings)
    assert settings.llm_api_key is not None
    assert settings.llm_api_key.get_secret_value() == "hush"


def test_a_model_servers_url_may_end_in_v1() -> None:
    """The root is the same whether /v1 was given or not."""
    expected = "http://host:8000"
    given = ("http://host:8000", "http://host:8000/v1", "http://host:8000/v1/")
    assert {load_settings({"VLLM_URL": url}).llm_url for url in given} == {expected}


# --- ports, paths, configuration --------------------------------------------------------------------------


def test_the_usual_port_is_taken_if_it_is_free() -> None:
    """A free usual port stays what it is."""
    port = free_port(23_000)
    assert free_port(port) == port


@pytest.mark.servers
def test_a_taken_port_is_left_alone_for_the_next_one() -> None:
    """A listener on all addresses takes the port on loopback, too."""
    with socket.socket() as other:
        other.bind(("0.0.0.0", free_port(23_100)))
        other.listen()
        taken = other.getsockname()[1]
        assert not is_free(taken)
        assert free_port(taken) > taken


NOBODY, SOMEBODY = 65_534, 65_533


@pytest.mark.parametrize(
    ("listening", "refused"),
    [
        ([("0100007F", "0A", NOBODY)], True),
        ([("00000000", "0A", NOBODY)], True),
        ([("00000000", "0A", NOBODY), ("0100007F", "0A", SOMEBODY)], False),  # the closer one is asked
        ([("0100007F", "0A", 0)], False),
        ([("0100007F", "01", NOBODY)], False),  # a connection, and no listener
        ([("0200007F", "0A", NOBODY)], False),
        ([], False),
    ],
)
def test_no_key_goes_to_a_port_where_another_user_listens(
    listening: list[tuple[str, str, int]], refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Linux lists listeners (proc_pid_net(5)); neither the probe nor a client's environment is given then."""
    sockets = [f" 0: {at}:1070 00000000:0000 {state} 0:0 00:0 0 {user} 0 1" for at, state, user in listening]
    (tmp_path / "tcp").write_text("\n".join(["  sl  local_address ...", *sockets]))
    listed = [(tmp_path / path.name, address) for path, address in ports._LISTENERS]
    monkeypatch.setattr(ports, "_LISTENERS", listed)
    monkeypatch.setattr(ports, "is_free", lambda _port: False)
    monkeypatch.setattr(os, "geteuid", lambda: SOMEBODY)
    for url in ("http://127.0.0.1:4208/api", "nats://conclave:secret@127.0.0.1:4208", "127.0.0.1:4208"):
        with (
            pytest.raises(NoAnswerError, match=r"uid 65534\) listens at port 4208")
            if refused
            else contextlib.nullcontext()
        ):
            ports.refuse_stranger(url)


def test_a_long_home_has_a_short_socket() -> None:
    """A unix socket's path ends at 108 bytes, and Ray's sockets lie 66 bytes deeper."""
    paths = StackPaths.of(Path("/") / ("long" * 60))
    assert len(str(paths.socket)) < 100
    assert len(str(paths.ray_sessions)) < 42
    assert paths.runtime != StackPaths.of("/other").runtime


def test_what_is_written_can_be_read_by_its_owner_only(settings: Settings) -> None:
    """Directories and keys are closed to others, those that were open before as well, and no key is like another."""
    paths = StackPaths.of(settings.home)
    (paths.home / "logs").mkdir(parents=True, mode=0o755)
    for name in ("lock", "deployed.json", "logs/supervisord.log"):
        (paths.home / name).touch(mode=0o644)
    paths.create()
    made = [paths.home, paths.runtime, *paths.home.rglob("*")]
    assert {path.name: path.stat().st_mode & 0o077 for path in made} == {path.name: 0 for path in made}
    assert len({key.read_text() for key in keys(paths)}) == len(keys(paths))
    before = {key: key.read_text() for key in keys(paths)}
    paths.create()
    assert {key: key.read_text() for key in keys(paths)} == before
    paths.runtime.rmdir()


def test_a_runtime_directory_of_somebody_else_is_left_alone(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stack of this home still comes up: in another one, which is found again and made anew."""
    monkeypatch.setattr("deployments.stack.paths._TEMPORARY", str(tmp_path))
    paths = StackPaths.of(settings.home)
    usual = paths.runtime
    usual.symlink_to(tmp_path / "theirs")
    (tmp_path / "theirs").mkdir(mode=0o777)
    paths.create()
    chosen = paths.runtime
    assert chosen != usual
    assert is_private(chosen)
    assert StackPaths.of(settings.home).runtime == chosen
    chosen.rmdir()
    paths.create()
    assert is_private(paths.runtime)


@pytest.mark.parametrize("found", ["", "junk", "\x00\xff", "99999999999999999999"])
def test_a_claim_that_makes_no_sense_claims_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: str
) -> None:
    """Whatever stands in it; and a link in its place is replaced, not followed."""
    tmp_path.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    port = free_port(23_300)
    claim = tmp_path / "conclave-ports" / str(port)
    assert claim.read_text() == str(os.getpid())
    victim = tmp_path / "victim"
    victim.write_text(found)
    claim.unlink()
    claim.symlink_to(victim)
    assert free_port(port) == port
    assert victim.read_text() == found
    assert claim.read_text() == str(os.getpid())


def test_a_folder_for_claims_that_is_somebody_elses_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that others can write to: a port is found, and nothing is written."""
    tmp_path.chmod(0o700)
    (tmp_path / "conclave-ports").mkdir(mode=0o700)
    (tmp_path / "conclave-ports").chmod(0o777)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    port = free_port(23_400)
    assert free_port(port) == port
    assert list((tmp_path / "conclave-ports").iterdir()) == []


CHOOSE = "import sys; from deployments.stack.ports import free_port; print(free_port(int(sys.argv[1])))"


def test_a_port_stays_claimed_while_the_one_that_it_was_passed_on_to_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stack's supervisor keeps the port of a part that is away; another process with its number does not."""
    tmp_path.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))

    def chosen() -> int:
        command = [sys.executable, "-c", CHOOSE, "23500"]
        return int(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout)

    with subprocess.Popen(["sleep", "300"]) as supervisor:
        try:
            port = free_port(23_500)
            pass_on_claims(supervisor.pid)
            assert free_port(23_500) > port
            assert chosen() > port
            os.utime(tmp_path / "conclave-ports" / str(port), (0, 0))
            assert chosen() == port
            pass_on_claims(supervisor.pid)
            supervisor.kill()
            os.waitid(os.P_PID, supervisor.pid, os.WEXITED | os.WNOWAIT)
            assert chosen() == port  # it has ended, and waits to be reaped
        finally:
            supervisor.kill()


AT_ONCE = """
import os, sys, threading, multiprocessing
from pathlib import Path
from deployments.stack.ports import free_port
fork, rounds = multiprocessing.get_context("fork"), int(sys.argv[1])
ready = fork.Barrier(4)
def choose(number, chosen):
    for start in range(rounds):
        ready.wait(60)
        chosen.put((start, free_port(25_000 + 10 * start)))
    ready.wait(60)
chosen = fork.Queue()
each = [fork.Process(target=choose, args=(number, chosen)) for number in range(4)]
[one.start() for one in each]
found = [chosen.get(timeout=60) for _ in range(4 * rounds)]
[one.join() for one in each]
print(len(set(found)))
"""
"""Four processes ask for the same port at the same time, again and again; how many different ports they get."""


def test_two_that_start_at_once_get_two_ports(tmp_path: Path) -> None:
    """Also where a process that is gone has left its claim."""
    tmp_path.chmod(0o700)
    gone = subprocess.Popen(["true"])
    gone.wait()
    claims = tmp_path / "conclave-ports"
    claims.mkdir(mode=0o700)
    for number in range(100):
        (claims / str(25_000 + 10 * number)).write_text(str(gone.pid))
    environ = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    command = [sys.executable, "-c", AT_ONCE, "100"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=True)
    assert int(done.stdout) == 4 * 100


def keys(paths: StackPaths) -> list[Path]:
    """The key of each door."""
    return [
        paths.ray_token,
        paths.prefect_auth,
        paths.nats_password,
        paths.events_password,
        paths.llm_key,
        paths.token,
    ]


def test_a_home_that_cannot_be_made_is_an_error_of_ours(tmp_path: Path) -> None:
    """The error names the directory."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StackError, match="file"):
        StackPaths.of(tmp_path / "file" / "home").create()


def test_the_lock_is_waited_for_and_then_given_up(settings: Settings) -> None:
    """A second command of the same home says that it waits, and ends with an error."""
    paths = StackPaths.of(settings.home)
    paths.home.mkdir()
    told: list[str] = []
    with locked(paths, 0, silent), pytest.raises(StackBusyError), locked(paths, 0.1, told.append):
        pass
    assert len(told) == 1


def test_the_tail_of_a_log_starts_at_the_last_start(tmp_path: Path) -> None:
    """What an earlier run wrote is not shown as the reason of this one's end."""
    path = tmp_path / "part.log"
    path.write_text("of before\n")
    mark_log(path)
    with path.open("a") as file:
        file.write("of now\n")
    assert log_tail(path) == "    of now"
    assert log_tail(tmp_path / "none.log") == ""


def program(text: str, part: str) -> configparser.SectionProxy:
    """A part's section, read as supervisor reads it."""
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";", "#"))
    parser.read_string(text)
    return parser[f"program:{part}"]


def test_the_configuration_quotes_what_a_command_contains() -> None:
    """Spaces and percent signs of a command come out as they went in."""
    command = ("/a dir/100%/run", "--name", "it's")
    text = configuration([Part("nats", "nats://127.0.0.1:4222", command)], StackPaths.of("/home"))
    assert tuple(shlex.split(program(text, "nats")["command"].replace("%%", "%")))[-3:] == command


def test_every_part_that_is_ours_is_restarted_and_ended_as_a_group(settings: Settings) -> None:
    """Prefect and Ray run below NATS, and all are stopped with their children."""
    parts = plan(settings, UpOptions(simulate=True))
    text = configuration(parts, StackPaths.of(settings.home))
    for part in parts:
        section = program(text, part.name)
        assert (section["autorestart"], section["stopasgroup"], section["killasgroup"]) == ("true",) * 3
    niced = {part.name for part in parts if program(text, part.name)["command"].startswith("nice ")}
    assert niced == {"prefect", "ray", "worker"}


@pytest.mark.parametrize(("given", "grpc"), [("off", None), ("127.0.0.1:50999", "127.0.0.1:50999")])
def test_where_the_gateway_takes_grpc_is_a_setting(settings: Settings, given: str, grpc: str | None) -> None:
    """It may be turned off; without a word it is the usual port, or the next free one."""
    told = settings.model_copy(update={"grpc": given})
    gateway = next(part for part in plan(told, UpOptions(simulate=True)) if part.name == "gateway")
    assert gateway.grpc == grpc
    usual = next(part for part in plan(settings, UpOptions(simulate=True)) if part.name == "gateway")
    assert (usual.grpc or "").startswith("127.0.0.1:50")
    assert load_settings({"CONCLAVE_GRPC": given}).grpc == given
    with pytest.raises(SettingsError, match="CONCLAVE_GRPC"):
        load_settings({"CONCLAVE_GRPC": "here"})


def test_no_secret_is_in_the_configuration(settings: Settings) -> None:
    """Neither the model server's key nor the Ray token is written into it."""
    secret = settings.model_copy(update={"llm_api_key": load_settings({"CONCLAVE_LLM_API_KEY": "hush"}).llm_api_key})
    paths = StackPaths.of(settings.home)
    paths.create()
    text = configuration(plan(secret, UpOptions(simulate=True)), paths)
    assert "hush" not in text
    assert [key.name for key in keys(paths) if key.read_text() in text] == []
    paths.runtime.rmdir()


UNRELATED = (
    *("AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "OPENAI_API_KEY", "DATABASE_URL", "SSH_AUTH_SOCK", "KUBECONFIG"),
    *("PGPASSWORD", "ANTHROPIC_API_KEY", "AZURE_CLIENT_SECRET", "PATHS", "HOME_TOKEN", "MY_PREFECT_KEY", "XRAY_TOKEN"),
    *("NATS_URL", "NATS_PASSWORD", "VLLM_API_KEY", "RAY_AUTH_TOKEN", "CONCLAVE_LLM_API_KEY"),
    *("PREFECT_API_KEY", "PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING"),
)
"""What an operator's shell may have for others, or for parts of ours that run elsewhere."""


@pytest.mark.servers
def test_a_key_goes_to_no_server_that_a_part_leads_to() -> None:
    """A redirect is no answer: urllib would take the key along."""
    seen: list[str | None] = []

    class Leads(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("Authorization"))
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{self.server.server_address[1]}/elsewhere")
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Leads) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(NoAnswerError, match="302"):
            ask_prefect(f"http://127.0.0.1:{server.server_address[1]}/api", "Basic key")
        server.shutdown()
    assert seen == ["Basic key"]


def test_a_key_for_a_part_from_outside_is_found_by_later_commands(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without asking the user again; one that the shell has comes first, and none is shown."""
    paths = StackPaths.of(settings.home)
    paths.create()
    parts = {
        name: PartRecord(url=f"http://127.0.0.1:{port}", external=True)
        for port, name in enumerate(("nats", "prefect", "ray", "llm"))
    }
    record = StackRecord(parts=parts, given={"PREFECT_API_AUTH_STRING": "user:given-to-up"})
    write_private(paths.record, record.model_dump_json())
    told = status(settings, ask=False)
    monkeypatch.delenv("PREFECT_API_AUTH_STRING", raising=False)
    assert environment(told)["PREFECT_API_AUTH_STRING"] == "user:given-to-up"
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "user:newer")
    assert "PREFECT_API_AUTH_STRING" not in environment(told)
    assert "given-to-up" not in told.model_dump_json()
    paths.runtime.rmdir()


@pytest.mark.parametrize("given", [True, False], ids=["a key of the user's", "the home's own key"])
@pytest.mark.parametrize("simulated", [True, False], ids=["simulator", "vllm"])
def test_no_part_is_given_a_secret_that_it_has_no_use_for(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, given: bool, simulated: bool
) -> None:
    """Nothing of the operator's own, the model server's key to the model server alone, each other key to its door."""
    for name in UNRELATED:
        monkeypatch.setenv(name, OPERATORS)
    monkeypatch.setenv("CONCLAVE_OF_A_WEBHOOK", "the-webhooks-secret")  # the worker gets others that begin so
    paths = StackPaths.of(settings.home)
    paths.create()
    webhooks = settings.home / "webhooks.yaml"
    entry = "{name: a, signature: github, secrets: [{env: CONCLAVE_OF_A_WEBHOOK}], request: {task: t}}"
    webhooks.write_text(f"webhooks: [{entry}]")
    settings = settings.model_copy(update={"webhooks": webhooks})
    password = paths.nats_password.read_text()
    urls = {"nats": f"nats://conclave:{password}@127.0.0.1:4222", "prefect": "http://127.0.0.1:4200/api"}
    urls |= {"ray": "127.0.0.1:6379", "llm": "http://127.0.0.1:8000", "worker": "http://127.0.0.1:8090"}
    urls["gateway"] = "http://127.0.0.1:8080"  # and nowhere gRPC, which an older version did not know
    record = StackRecord(
        parts={name: PartRecord(url=url) for name, url in urls.items()},
        simulated=simulated,
        llm_key="the-users-key" if given else None,
    )
    write_private(paths.record, record.model_dump_json())
    write_environments(settings, paths, record)
    secrets = {key.name: key.read_text() for key in keys(paths)} | {"the operator's": OPERATORS}
    secrets["llm_key"] = record.llm_key or secrets["llm_key"]
    secrets["webhook"] = "the-webhooks-secret"
    written = {file.name: file.read_text() for file in paths.environments.iterdir()}
    assert set(written) == set(urls)
    written["supervisord"] = " ".join(supervisors_environment(settings).values())
    held = {name: {part for part, text in written.items() if secret in text} for name, secret in secrets.items()}
    assert held == {
        "the operator's": set(),
        "llm_key": {"llm"},
        "prefect_auth": {"prefect", "worker"},
        "nats_password": {"gateway", "worker"},
        "nats_events_password": set(),
        "ray_token": set(),
        "token": set(),
        "webhook": {"gateway"},
    }
    paths.runtime.rmdir()


def test_nats_writes_through_only_when_it_is_asked_to() -> None:
    """Surviving a power cut is a setting."""
    assert "sync_interval: always" in nats_config("nats://us:pw@127.0.0.1:4222", "always", "theirs")
    assert "sync_interval" not in nats_config("nats://us:pw@127.0.0.1:4222", "interval", "theirs")


# --- which model server -----------------------------------------------------------------------------------


def llm(settings: Settings, options: UpOptions) -> Part:
    """The planned model server."""
    return next(part for part in plan(settings, options) if part.name == "llm")


def test_two_model_servers_at_once_are_refused(settings: Settings) -> None:
    """The error names both options."""
    with pytest.raises(StackOptionsError, match=r"--simulate.*--llm-url"):
        plan(settings, UpOptions(simulate=True, llm_url="http://127.0.0.1:1"))


def test_a_given_model_server_is_external(settings: Settings) -> None:
    """The option wins over the variable, and either means that nothing is started."""
    given = settings.model_copy(update={"llm_url": "http://variable:8000"})
    assert llm(given, UpOptions()).url == "http://variable:8000"
    part = llm(given, UpOptions(llm_url="http://option:8000/v1/"))
    assert (part.url, part.external) == ("http://option:8000", True)


def test_a_vllm_is_started_with_its_model(settings: Settings) -> None:
    """CONCLAVE_VLLM serves VLLM_MODEL, and is an error without one."""
    vllm = settings.model_copy(update={"vllm": Path("/opt/vllm")})
    with pytest.raises(StackOptionsError, match="VLLM_MODEL"):
        plan(vllm, UpOptions())
    command = llm(vllm.model_copy(update={"llm_model": "m"}), UpOptions()).command or ()
    assert " ".join(command).partition("/opt/vllm")[2].startswith(" serve m --host 127.0.0.1 --port ")


def test_a_vllm_gets_further_arguments(tmp_path: Path) -> None:
    """Split as a shell would; where it listens is decided by the stack, so that comes last."""
    given = {"CONCLAVE_HOME": str(tmp_path), "CONCLAVE_VLLM": "/opt/vllm", "VLLM_MODEL": "m"}
    arguments = {"CONCLAVE_VLLM_ARGS": "--max-model-len 8192 --x '{\"a\": 1}'"}
    command = llm(load_settings(given | arguments), UpOptions()).command or ()

    after = command[command.index("/opt/vllm") + 1 :]
    assert after[:6] == ("serve", "m", "--max-model-len", "8192", "--x", '{"a": 1}')
    assert after[6] == "--host"


def test_a_vllm_that_is_killed_leaves_no_engine_behind(settings: Settings, tmp_path: Path) -> None:
    """Its engine is a process of its own that would live on, with all the memory."""
    vllm = tmp_path / "vllm"
    vllm.write_text(f"#!/bin/sh\nsleep 600 &\necho $$ > {tmp_path}/draft\nmv {tmp_path}/draft {tmp_path}/pid\nwait\n")
    vllm.chmod(0o700)
    part = llm(settings.model_copy(update={"vllm": vllm, "llm_model": "m"}), UpOptions())
    leader = subprocess.Popen(part.command or (), start_new_session=True)

    def group() -> list[psutil.Process]:
        found = set()
        for one in psutil.process_iter():
            with contextlib.suppress(ProcessLookupError):
                found |= {one} if os.getpgid(one.pid) == leader.pid else set()
        return running(found)

    try:
        assert eventually((tmp_path / "pid").exists)
        assert len(group()) == 3
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
        leader.wait(60)
        assert eventually(lambda: not group())
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(leader.pid, signal.SIGKILL)


def test_the_simulator_is_the_last_resort(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a server and a vllm the simulator is planned, with its further arguments."""
    monkeypatch.setenv("PATH", "/nowhere")
    part = llm(settings, UpOptions(simulator_args=("--latency", "0.5")))
    assert part.simulated
    assert (part.command or ())[-2:] == ("--latency", "0.5")


def test_an_external_part_that_does_not_answer_stops_everything(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is started, and the error says where the address came from."""
    monkeypatch.setattr("deployments.stack.lifecycle.EXTERNAL_TIMEOUT_S", 0.1)
    dead = f"http://127.0.0.1:{free_port(23_200)}"
    with pytest.raises(ExternalPartError, match="--llm-url"):
        up(UpOptions(llm_url=dead), silent, settings)
    assert family(settings.home).everyone == set()
    assert status(settings).parts["nats"].state == "stopped"


# --- what is told -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("nats://user:hush@one:4222,nats://user:hush@two:4222", "nats://one:4222,nats://two:4222"),
        ("nats://hush@one:4222", "nats://one:4222"),
        ("nats://user:hu#hush@one:4222", "nats://one:4222"),
        ("nats://user:hu/hush@one:4222", "nats://one:4222"),
        ("nats://user:hu,hush@one:4222", "nats://one:4222"),
        ("nats://user:hu@hush@one:4222", "nats://one:4222"),
        ("http://one:4200/api", "http://one:4200/api"),
    ],
)
def test_credentials_of_a_url_are_not_shown(url: str, shown: str) -> None:
    """Whatever a password is made of; what is told cannot hold them at all."""
    part = PartStatus(state="external", url=url)
    told = StackStatus(home="/h", nats=url, prefect=url, llm=url, parts={"nats": part})
    assert (without_credentials(url), part.url, told.nats) == (shown,) * 3
    assert "hush" not in repr(told) + told.model_dump_json()


def outside(settings: Settings, **urls: str) -> None:
    """Note parts from outside as those of a stack that is up."""
    settings.home.mkdir(exist_ok=True)
    given = {"nats": "nats://n:1", "prefect": "http://p/api", "ray": "r:1", "llm": "http://l:1", **urls}
    parts = {name: {"url": url, "external": True} for name, url in given.items()}
    write_private(StackPaths.of(settings.home).record, json.dumps({"parts": parts}))


def test_an_external_prefect_keeps_the_users_profile(settings: Settings) -> None:
    """PREFECT_HOME and keys of the home are set for parts of ours only; credentials come out whole."""
    outside(settings, nats="nats://user:hush@n:1")
    told = status(settings, ask=False)
    assert environment(told) == {
        "CONCLAVE_HOME": str(settings.home),
        "NATS_URL": "nats://user:hush@n:1",
        "PREFECT_API_URL": "http://p/api",
        "RAY_ADDRESS": "r:1",
        "VLLM_URL": "http://l:1",
    }
    assert "hush" not in told.model_dump_json()


def test_a_bad_url_with_a_password_is_refused_without_it() -> None:
    """The error names the variable alone."""
    with pytest.raises(SettingsError, match="NATS_URL is not usable") as caught:
        load_settings({"NATS_URL": "http://joe:hush@host"})
    assert "hush" not in str(caught.value)


def test_what_a_shell_kept_of_this_homes_own_parts_is_not_from_outside(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`eval "$(conclave env)"`, `down`, `up`: all are started again; others' parts are still theirs."""
    paths = StackPaths.of(settings.home)
    paths.create()
    own = {
        "CONCLAVE_HOME": str(settings.home),
        "NATS_URL": f"nats://conclave:{paths.nats_password.read_text()}@127.0.0.1:4222",
        "PREFECT_API_URL": "http://127.0.0.1:4200/api",
        "RAY_ADDRESS": "127.0.0.1:6379",
        "VLLM_URL": "http://127.0.0.1:8000",
        "CONCLAVE_LLM_API_KEY": paths.llm_key.read_text(),
    }
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", paths.prefect_auth.read_text())
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(paths.ray_token))
    assert without_own(load_settings(own), paths) == settings
    theirs = load_settings({**own, "NATS_URL": "nats://n:1", "RAY_ADDRESS": "r:1", "VLLM_URL": "http://l:1"})
    kept = without_own(theirs, paths)
    assert (kept.nats_url, kept.ray_address, kept.llm_url) == ("nats://n:1", "r:1", "http://l:1")
    assert kept.llm_api_key is None  # a server from outside never gets the home's own
    paths.runtime.rmdir()


def test_a_stack_that_never_was_is_stopped(settings: Settings) -> None:
    """Status and down of an unused home say so and create nothing."""
    assert {part.state for part in status(settings).parts.values()} == {"stopped"}
    assert environment(status(settings)) == {"CONCLAVE_HOME": str(settings.home)}
    assert down(settings, silent) is False
    assert not settings.home.exists()


def test_a_record_without_a_supervisor_is_recognised_as_stale(settings: Settings) -> None:
    """Parts of a stack whose processes are all gone are stopped, whatever the state file says."""
    paths = StackPaths.of(settings.home)
    settings.home.mkdir()
    parts = {name: {"url": "http://127.0.0.1:1"} for name in ("nats", "llm", "prefect", "ray")}
    write_private(paths.record, json.dumps({"parts": parts}))
    assert {part.state for part in status(settings).parts.values()} == {"stopped"}
    assert not status(settings).is_up


# --- a whole stack ----------------------------------------------------------------------------------------


@pytest.fixture
def lines(settings: Settings) -> Iterator[list[str]]:
    """The lines of progress; whatever the test leaves running is ended."""
    yield []
    down(settings, silent)


def eventually(check: Callable[[], bool], timeout_s: float = 60) -> bool:
    """Whether the check comes true in time."""
    deadline = time.monotonic() + timeout_s
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def running(processes: set[psutil.Process]) -> list[psutil.Process]:
    """Those that have not ended; one that waits to be reaped has."""
    return [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


OPERATORS = "the-operators-own-secret"
MAY_HAVE = {"llm_key": {"llm"}, "prefect_auth": {"prefect", "worker"}}
"""Keys that a part asks for or asks with, in its environment; the others are read from files."""


def seen_in_processes(settings: Settings) -> dict[str, set[str]]:
    """Secrets in the environment or the command line of a process that has no use for them, with its part's name."""
    paths, found = StackPaths.of(settings.home), dict[str, set[str]]()
    secrets = {key.name: key.read_text() for key in keys(paths)} | {"the operator's": OPERATORS}
    for process in family(settings.home).everyone:
        with contextlib.suppress(psutil.NoSuchProcess):
            environ, command = process.environ(), " ".join(process.cmdline())
            part = environ.get("SUPERVISOR_PROCESS_NAME", "supervisord")
            for name, secret in secrets.items():
                held = secret in " ".join(environ.values()) and part not in MAY_HAVE.get(name, ())
                if held or secret in command:
                    found.setdefault(name, set()).add(part)
    return found


@pytest.mark.stack
@pytest.mark.timeout(400)
def test_a_stack_comes_up_heals_is_found_again_and_goes_without_a_trace(
    settings: Settings, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All parts answer, a killed NATS comes back, a second up finds the first, and down leaves no process.

    No part has seen what else is in the operator's environment.
    """
    monkeypatch.setenv("CONCLAVE_LLM_API_KEY", OPERATORS)
    monkeypatch.setenv("SOMETHING_ELSE", OPERATORS)
    told = up(UpOptions(simulate=True, worker=False), lines.append, settings)
    assert seen_in_processes(settings) == {"nats_password": {"gateway"}}
    monkeypatch.delenv("SOMETHING_ELSE")
    assert {name: (part.state, part.answers) for name, part in told.parts.items()} == dict.fromkeys(
        ("nats", "gateway", "llm", "prefect", "ray"), ("running", True)
    )
    assert told.is_up
    assert told.simulated
    assert sum(" ready at " in line for line in lines) == 5

    first = told.parts["nats"].pid
    assert first is not None
    psutil.Process(first).kill()

    def healed() -> bool:
        nats = status(settings).parts["nats"]
        return nats.state == "running" and nats.answers is True and nats.pid != first

    assert eventually(healed)

    again = up(UpOptions(simulate=True, worker=False), lines.append, settings)
    assert again.parts["prefect"].pid == told.parts["prefect"].pid
    with pytest.raises(StackOptionsError, match="conclave down"):
        up(UpOptions(llm_url="http://127.0.0.1:1"), silent, settings)
    with pytest.raises(StackOptionsError, match="asks for tokens"):
        up(UpOptions(simulate=True, worker=False, open=True), silent, settings)

    everyone = family(settings.home).everyone
    assert len(everyone) > len(told.parts)
    assert down(settings, silent) is True
    assert running(everyone) == []
    assert family(settings.home).everyone == set()
    assert not StackPaths.of(settings.home).record.exists()
    with pytest.raises(NoAnswerError):
        ask_part(Part("nats", str(told.nats)), settings)
    assert down(settings, silent) is False
