"""Shells, folders and environments in which the command is run, each as users have met it; no stack is needed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deployments.stack.proxies import past_proxies, without_socks
from tests.deployments.commands import OF_THE_STACK

pytestmark = pytest.mark.servers  # programs of its own

ROOT = Path(__file__).parents[2]
CONCLAVE = str(Path(sys.executable).with_name("conclave"))
ADDRESSES = (*OF_THE_STACK, "CONCLAVE_HOME")
"""Of a stack that this group of tests may have."""


def run(
    *arguments: str, cwd: Path | None = None, stdin: bytes = b"", **environ: str
) -> subprocess.CompletedProcess[bytes]:
    """The command in a shell of its own."""
    shell = {name: value for name, value in os.environ.items() if name not in ADDRESSES}
    return subprocess.run(
        [CONCLAVE, *arguments], cwd=cwd, input=stdin, env={**shell, **environ}, capture_output=True, timeout=60
    )


def one_line(told: bytes) -> str:
    """What was told, which is a line and no traceback."""
    text = told.decode()
    assert "Traceback" not in text
    assert len(text.splitlines()) == 1, text
    return text


def test_standard_input_that_is_no_utf_8_is_wrong_use(tmp_path: Path) -> None:
    """Also where the locale says that it is something else."""
    done = run("deliberate", "--local", "-", stdin=b"caf\xe9", CONCLAVE_HOME=str(tmp_path), PYTHONIOENCODING="utf-8")
    assert done.returncode == 2
    assert "standard input: it is not UTF-8 (byte 3)" in one_line(done.stderr)


def test_an_output_that_cannot_show_a_character_is_no_error(tmp_path: Path) -> None:
    """It shows a question mark for it."""
    home = tmp_path / "\u65e5\u672c"
    done = run("status", "--json", CONCLAVE_HOME=str(home), PYTHONIOENCODING="latin-1")
    assert b"Traceback" not in done.stderr
    assert f"{tmp_path}/??".encode() in done.stdout


@pytest.mark.parametrize("verb", [("status",), ("result", "x"), ("up", "--detach", "--simulate")])
def test_a_home_that_is_a_file_is_a_line(tmp_path: Path, verb: tuple[str, ...]) -> None:
    """That names it."""
    (tmp_path / "home").write_text("")
    done = run(*verb, CONCLAVE_HOME=str(tmp_path / "home"))
    assert done.returncode == 6
    assert str(tmp_path / "home") in one_line(done.stderr)


def test_a_working_directory_that_is_gone_is_a_line(tmp_path: Path) -> None:
    """Else Ray says that there is no cluster."""
    gone = tmp_path / "gone"
    gone.mkdir()
    script = f'cd "{gone}" && rmdir "{gone}" && exec "{CONCLAVE}" result x'
    done = subprocess.run(["bash", "-c", script], capture_output=True, timeout=60)
    assert done.returncode == 2
    assert "the working directory cannot be used" in one_line(done.stderr)


def test_the_command_finds_its_own_packages_whatever_stands_on_the_path(tmp_path: Path) -> None:
    """Somebody's `tasks.py` is not taken for ours."""
    for name in ("tasks", "flows", "blocks", "infra"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('not ours')")
    done = run("retally", "--help", PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert b"borda" in done.stdout


@pytest.fixture
def long_log(tmp_path: Path) -> Path:
    """A home with a log of two megabytes, which `conclave logs` prints without a stack."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/nats.log").write_text("a line of a log\n" * 130_000)
    return tmp_path


@pytest.mark.parametrize("options", ["-n 200000", "-n 200000 --follow"])
def test_a_reader_that_leaves_ends_a_command_quietly(long_log: Path, options: str) -> None:
    """As SIGPIPE ends other programs: `conclave logs | head -1`."""
    script = f'"{CONCLAVE}" logs nats {options} 2>told | head -1; echo "${{PIPESTATUS[0]}}"'
    environ = {**os.environ, "CONCLAVE_HOME": str(long_log)}
    done = subprocess.run(["bash", "-c", script], cwd=long_log, env=environ, capture_output=True, timeout=60)
    assert done.stdout.decode().split("\n") == ["a line of a log", "141", ""]
    assert (long_log / "told").read_text().splitlines() == [f"==> nats: {long_log}/logs/nats.log"]


@pytest.mark.parametrize("verb", [("status", "--json"), ("doctor", "--json"), ("--help",), ("councils", "--help")])
def test_an_answer_that_nobody_reads_is_no_fault_of_the_program(tmp_path: Path, verb: tuple[str, ...]) -> None:
    """Whatever writes it: typer, rich, or the verb itself in one piece at its end."""
    reader, writer = os.pipe()
    os.close(reader)
    environ = {**os.environ, "CONCLAVE_HOME": str(tmp_path)}
    done = subprocess.run([CONCLAVE, *verb], env=environ, stdout=writer, stderr=subprocess.PIPE, timeout=60)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_nothing_ends_for_want_of_a_reader_of_what_is_beside_the_answer(tmp_path: Path) -> None:
    """Standard error may be closed: the answer comes, and the code is its own."""
    reader, writer = os.pipe()
    os.close(reader)
    environ = {**os.environ, **dict.fromkeys(OF_THE_STACK, ""), "CONCLAVE_HOME": str(tmp_path)}
    done = subprocess.run([CONCLAVE, "result", "x"], env=environ, stdout=subprocess.PIPE, stderr=writer, timeout=60)
    os.close(writer)
    assert (done.returncode, done.stdout) == (6, b"")


def test_an_answer_that_cannot_be_written_is_a_line(tmp_path: Path) -> None:
    """A full disk is no traceback."""
    environ = {**os.environ, "CONCLAVE_HOME": str(tmp_path)}
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [CONCLAVE, "status", "--json"], env=environ, stdout=full, stderr=subprocess.PIPE, timeout=60
        )
    assert done.returncode == 1
    assert "standard output cannot be written: No space left on device" in one_line(done.stderr)


def test_a_folder_with_a_blank_in_its_name_is_refused_before_anything_is_installed(tmp_path: Path) -> None:
    """Ray runs an unquoted path, and says in its log alone that it could not."""
    checkout = tmp_path / "my checkout"
    (checkout / "infra").mkdir(parents=True)
    shutil.copy(ROOT / "infra/setup.sh", checkout / "infra")
    done = subprocess.run(["bash", "infra/setup.sh", ".venv"], cwd=checkout, capture_output=True, timeout=60)
    assert done.returncode == 1
    assert "blank in its name" in one_line(done.stderr)


def test_our_parts_are_asked_past_the_proxies_of_the_environment() -> None:
    """Whatever else goes through one; and nothing is said where there is none."""
    assert past_proxies({}) == {}
    expected = "inside.example,127.0.0.1,localhost,::1"
    assert past_proxies({"HTTP_PROXY": "http://p", "NO_PROXY": "inside.example"}) == {
        "no_proxy": expected,
        "NO_PROXY": expected,
    }
    known = {"https_proxy": "http://p", "no_proxy": "127.0.0.1"}
    assert past_proxies(known)["no_proxy"] == "127.0.0.1"


def test_a_proxy_by_socks_ends_nothing() -> None:
    """Prefect's client would fail to be made, though it would not ask that proxy."""
    given = {"ALL_PROXY": "socks5://p:1", "http_proxy": "socks5h://p:1", "HTTPS_PROXY": "http://p:2", "X": "socks"}
    assert without_socks(given) == {"HTTPS_PROXY": "http://p:2", "X": "socks"}
