"""Debian's packages: said before they are installed, and not installed where that is forbidden."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOG = '#!/bin/bash\necho "$(basename "$0") $*" | tee -a "$CALLS" >&2\n'
RUN = 'case $(basename "$0") in sudo) while [[ $1 == -* ]]; do shift; done; "$@";; esac\n'


class Debian:
    """A machine on which `apt-get` and `sudo` only write down that they were called."""

    def __init__(self, folder: Path, uid: int) -> None:
        self._folder, self._uid = folder, uid
        self._bin = folder / "bin"
        self._bin.mkdir()
        for name, code in {"apt-get": LOG, "sudo": LOG + RUN, "id": f"#!/bin/bash\necho {uid}\n"}.items():
            self.program(name, code)

    def program(self, name: str, code: str) -> None:
        """Another program that this machine has."""
        (self._bin / name).write_text(code)
        (self._bin / name).chmod(0o755)

    def run(self, script: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """A script of bash's, from the project's folder."""
        for name in ("bash", "basename", "tee", "dirname", "env", "cat", "true"):
            if not (self._bin / name).exists():
                (self._bin / name).symlink_to(f"/usr/bin/{name}")
        (self._folder / "calls").touch()
        given = {"PATH": str(self._bin), "CALLS": str(self._folder / "calls"), **environ}
        return subprocess.run(
            ["/bin/bash", "-c", script], env=given, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
        )

    @property
    def calls(self) -> list[str]:
        """What was called, in order."""
        return (self._folder / "calls").read_text().splitlines()


@pytest.fixture(params=[0, 1000], ids=["root", "a user with sudo"])
def debian(request: pytest.FixtureRequest, tmp_path: Path) -> Debian:
    """As root and as somebody who may use sudo."""
    return Debian(tmp_path, request.param)


INSTALL = ". infra/system.sh; install 'for a test' thing other"


def test_packages_reason_and_rights_are_said_before_anything_is_installed(debian: Debian) -> None:
    found = debian.run(INSTALL)
    assert found.returncode == 0, found.stderr
    said, *called = found.stderr.splitlines()
    for part in ("thing other", "for a test", "CONCLAVE_NO_APT=1"):
        assert part in said
    assert ("by sudo" in said) == any(call.startswith("sudo") for call in debian.calls)
    assert called  # the order of the lines is that of what happened
    assert any("apt-get install" in call and call.endswith("thing other") for call in debian.calls)


def test_forbidden_packages_are_named_for_whoever_installs_them_and_not_installed(debian: Debian) -> None:
    found = debian.run(INSTALL, CONCLAVE_NO_APT="1")
    assert found.returncode != 0
    assert "apt-get install thing other" in found.stderr
    assert debian.calls == []


@pytest.mark.parametrize("tool", ["postgresql", "chromium"])
def test_what_only_a_test_needs_is_left_out_with_a_reason_and_no_error(debian: Debian, tool: str) -> None:
    if tool == "postgresql" and list(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        pytest.skip("PostgreSQL is installed here")
    found = debian.run(f"bash infra/test_tools.sh {tool}", CONCLAVE_NO_APT="1")
    assert found.returncode == 0, found.stderr
    assert "skipped" in found.stderr
    assert f"apt-get install {tool}" in found.stderr
    assert debian.calls == []


def test_what_is_there_is_not_installed_again_and_nothing_is_said(debian: Debian) -> None:
    debian.program("chromium", "#!/bin/bash\n")
    without_driver = debian.run("bash infra/test_tools.sh chromium", CONCLAVE_NO_APT="1")
    assert "apt-get install chromium chromium-driver" in without_driver.stderr
    debian.program("chromedriver", "#!/bin/bash\n")
    found = debian.run("bash infra/test_tools.sh chromium")
    assert (found.returncode, found.stderr, debian.calls) == (0, "", [])


def test_an_environment_without_python_names_it_and_makes_nothing(debian: Debian, tmp_path: Path) -> None:
    found = debian.run(f"bash infra/setup.sh {tmp_path / 'venv'}", CONCLAVE_NO_APT="1")
    assert found.returncode != 0
    assert "apt-get install python3.11 python3.11-venv" in found.stderr
    assert debian.calls == []
    assert not (tmp_path / "venv").exists()


def test_nothing_else_of_ours_calls_apt() -> None:
    scripts = [path for path in (ROOT / "infra").rglob("*.sh") if path.name != "system.sh"]
    assert scripts
    for path in [*scripts, ROOT / "Makefile", ROOT / ".ci" / "run"]:
        lines = [line for line in path.read_text().splitlines() if "apt-get" in line or "sudo" in line]
        assert lines == [], path


def test_a_machine_without_apt_is_told_the_same(tmp_path: Path) -> None:
    machine = Debian(tmp_path, os.getuid())
    (tmp_path / "bin" / "apt-get").unlink()
    found = machine.run(INSTALL)
    assert found.returncode != 0
    assert "no apt-get" in found.stderr
    assert "thing other" in found.stderr
