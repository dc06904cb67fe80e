"""Batches that are killed, short of room, without permission, and two at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from tasks.batch.output import parts
from tasks.batch.output.errors import OutputError, written
from tests.tasks.batch.output.finished import decided, row
from tests.tasks.batch.output.outputs import Outputs

ROOT = Path(__file__).parents[4]
HEAD = """
import random, resource, signal, sys
from pathlib import Path
from tasks.batch.output.folder import Limits, open_output
from tests.tasks.batch.output.finished import decided, row
from tests.tasks.batch.output.outputs import ASKED
folder = Path(sys.argv[1])
def opened(**how):
    return open_output(folder / "a.parquet", ASKED, limits=Limits(rows=2), **how)
"""


@contextmanager
def running(folder: Path, program: str) -> Generator[IO[str], None, None]:
    """What a program prints while it runs; it is killed at the end."""
    command = [sys.executable, "-c", HEAD + textwrap.dedent(program), str(folder)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()


def ended(folder: Path, program: str) -> str:
    """What a program prints until it ends."""
    command = [sys.executable, "-c", HEAD + textwrap.dedent(program), str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_killed_batch_frees_its_output_and_what_it_wrote_stands(outputs: Outputs) -> None:
    program = """
    output = opened()
    for number in range(1, 1000):
        output.write(row(number, decided()))
        if number == 5:
            print("five", flush=True)
            signal.pause()
    """
    with running(outputs.folder, program) as said:
        assert said.readline() == "five\n"
        assert "is being written by another batch (process " in outputs.refused(resume=True)
        assert "is being written by another batch" in outputs.refused(replace=True)
    with outputs.open(resume=True) as output:
        assert output.told == []
        assert [one.id for one in output.standing()] == ["id-1", "id-2", "id-3", "id-4"]


@pytest.mark.parametrize("seed", range(3))
def test_killed_anywhere_every_row_is_there_once_after_it_was_resumed(outputs: Outputs, seed: int) -> None:
    """It says which rows are on disk; none of them is missing after the kill."""
    program = f"""
    random.seed({seed})
    output = opened()
    print("begun", flush=True)
    for number in range(1, 2001):
        output.write(row(number, decided()))
        print(number if number % 2 == 0 else "-", flush=True)
    """
    said = []
    with running(outputs.folder, program) as lines:
        for line in lines:
            said.append(line.strip())
            if len(said) > 20 + 13 * seed:
                break
    on_disk = {f"id-{number}" for number in range(1, max(int(one) for one in said if one.isdigit()) + 1)}
    with outputs.open(resume=True) as output:
        there = [one.id for one in output.standing()]
        assert on_disk <= set(there)
        assert len(there) == len(set(there))
        for number in range(1, 101):
            if f"id-{number}" not in there:
                output.write(row(number, decided()))
        rows = len(list(output.standing()))
        output.finish(rows, order="input")
    assert outputs.column("row") == list(range(1, rows + 1))


@pytest.mark.parametrize("order", ["completion", "input"])
def test_killed_while_the_output_is_made_nothing_is_lost_and_nothing_half_is_there(
    outputs: Outputs, order: str
) -> None:
    program = f"""
    from tasks.batch.output import folder as module
    with opened() as output:
        for number in range(1, 6):
            output.write(row(number, decided()))
        def add(self, chunk):
            print("making", flush=True)
            signal.pause()
        module.Summing.add = add
        output.finish(5, order="{order}")
    """
    with running(outputs.folder, program) as said:
        assert said.readline() == "making\n"
        assert (outputs.folder / ".a.parquet.tmp").exists()
    assert not (outputs.folder / "a.parquet").exists()
    with outputs.open(resume=True) as output:
        assert output.told == []
        output.finish(5, order="input")
    assert outputs.column("row") == [1, 2, 3, 4, 5]
    assert [path.name for path in outputs.folder.iterdir()] == ["a.parquet"]


FULL = """
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))
from tasks.batch.output.errors import OutputError
try:
    with opened(resume=True) as output:
        for number in range(1, 9):
            text = "".join(random.Random(number).choices("abcdefghijklmnop", k=500 if number < 5 else 200_000))
            output.write(row(number, decided(text)))
        {end}
except OutputError as error:
    print(error)
"""


def test_no_room_for_a_part_is_told_and_a_resume_goes_on(outputs: Outputs) -> None:
    """The limit of a file's size stands in for a disk that is full."""
    told = ended(outputs.folder, FULL.format(limit=60_000, end="pass"))
    assert "part-000003.parquet cannot be written: File too large" in told
    assert outputs.part_names() == ["part-000001.parquet", "part-000002.parquet"]
    assert not list(outputs.parts().glob(".*"))
    with outputs.open(resume=True) as output:
        assert output.told == []
        assert [one.id for one in output.standing()] == ["id-1", "id-2", "id-3", "id-4"]
        for number in range(5, 9):
            output.write(row(number, decided()))
        output.finish(8)
    assert sorted(outputs.column("row")) == list(range(1, 9))


@pytest.mark.parametrize("order", ["completion", "input"])
def test_no_room_for_the_output_leaves_the_parts(outputs: Outputs, order: str) -> None:
    program = FULL.format(limit=450_000, end=f"output.finish(8, order='{order}')")
    told = ended(outputs.folder, program)
    assert "a.parquet cannot be written: File too large" in told
    assert [path.name for path in outputs.folder.iterdir()] == ["a.parquet.parts"]
    with outputs.open(resume=True) as output:
        assert output.finish(8).rows == 8


@pytest.fixture
def small_disk(tmp_path: Path) -> Generator[Path, None, None]:
    """A file system of 512 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(place)]
    try:
        made = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        pytest.skip(f"a small file system cannot be mounted here: {error}")
    if made.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {made.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_is_full_is_told_and_holds_what_it_had(small_disk: Path) -> None:
    outputs, filler = Outputs(small_disk), small_disk / "filler"
    outputs.written(row(1, decided()))
    with pytest.raises(OSError, match="No space left"), filler.open("wb") as file:
        file.write(b"x" * (1 << 20))
    with pytest.raises(Exception, match=r"cannot be written: No space left on device"):
        outputs.written(row(2, decided("y" * 5_000)), resume=True)
    filler.unlink()
    with outputs.open(resume=True) as output:
        assert [one.id for one in output.standing()] == ["id-1"]
        output.write(row(2, decided()))
        output.finish(2)
    assert outputs.column("row") == [1, 2]


def test_no_permission_is_told() -> None:
    """Root becomes another user for it, since nothing is forbidden to root."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o555)
    user = os.geteuid()
    try:
        os.seteuid(user or 65534)
        told = Outputs(folder).refused()
    finally:
        os.seteuid(user)
        folder.rmdir()
    assert told == f"{folder}/a.parquet.parts/lock cannot be written: Permission denied"


def test_a_row_is_held_until_it_could_be_written(outputs: Outputs, monkeypatch: pytest.MonkeyPatch) -> None:
    real = parts.replace_bytes
    full = True

    def replace_bytes(path: Path, content: bytes, mode: int) -> None:
        with written(path):
            if full:
                raise OSError(28, "No space left on device")
        real(path, content, mode)

    monkeypatch.setattr(parts, "replace_bytes", replace_bytes)
    with outputs.open() as output:
        output.write(row(1, decided()))
        with pytest.raises(OutputError, match=r"part-000001.parquet cannot be written: No space left"):
            output.flush()
        full = False
        output.flush()
        assert [one.id for one in output.standing()] == ["id-1"]
