"""What a worker's parameters may name: files below the operator's folders and URLs, and nothing beside them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.batch import places
from tasks.batch.files import opened
from tasks.batch.places import Places
from tasks.batch.records import BatchFileError
from tasks.batch.rows import Columns, read_rows
from tests.tasks.batch.test_rows import SLOW

ROWS = "task,n\na,\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file, beside one that holds a secret."""
    for name in ("in/rows.csv", "in/deep/er/more.csv", "in/deep/rows.jsonl", "inner/secret.csv", "secret.csv"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(ROWS)
    return tmp_path / "in"


def refused(places_: Places, text: str) -> str:
    """Why a file may not be named, neither to be written nor to be read."""
    with pytest.raises(BatchFileError) as error:
        places_.allowed(text)
    with pytest.raises(BatchFileError), opened(text, places=places_):
        pass
    return str(error.value)


def tasks(text: str, places_: Places) -> list[str | None]:
    """The tasks of a file that lies in a place."""
    with opened(text, places=places_) as records:
        return [row.item and row.item.task for row in read_rows(records, Columns())]


def test_a_file_below_a_folder_is_allowed(folder: Path) -> None:
    own = Places([str(folder.parent / "other"), f" {folder} ", ""])
    for named in (folder / "rows.csv", folder / "deep/er/more.csv"):
        assert own.allowed(str(named)) == named
        assert own.allowed(named.as_uri()) == named
        assert tasks(str(named), own) == tasks(named.as_uri(), own) == ["a"]
    assert own.allowed(str(folder / "new/out.parquet")) == folder / "new/out.parquet"  # to be written


@pytest.mark.parametrize(
    "named",
    [
        "{root}/secret.csv",
        "{root}/inner/secret.csv",
        "{root}/in/../secret.csv",
        "{root}/in/deep/../../secret.csv",
        "{root}/in",
        "{root}",
        "in/rows.csv",
        "rows.csv",
        "~/rows.csv",
        "-",
        "",
        "/",
        "{root}/in/a\0.csv",
        "file://{root}/secret.csv",
        "file://{root}/in/%2e%2e/secret.csv",
        "file://{root}/in/..%2fsecret.csv",
        "file://elsewhere{root}/in/rows.csv",
        "file:{root}/secret.csv",
        "FILE://{root}/secret.csv",
        "memory://in/rows.csv",
        "simplecache::file://{root}/in/rows.csv",
    ],
)
def test_what_lies_elsewhere_is_refused(folder: Path, named: str) -> None:
    assert refused(Places([str(folder)]), named.format(root=folder.parent)).isprintable()


def test_without_a_place_every_file_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONCLAVE_BATCHES", raising=False)
    assert "set CONCLAVE_BATCHES there to a folder" in refused(Places.of_worker(), str(folder / "rows.csv"))
    monkeypatch.setenv("CONCLAVE_BATCHES", f"{folder},memory://in")
    assert Places.of_worker().allowed(str(folder / "rows.csv")) == folder / "rows.csv"
    assert Places.of_worker().allowed("memory://in/x") == "memory://in/x"


def test_no_symbolic_link_is_followed(folder: Path) -> None:
    """Neither at the end nor on the way, and not where it leads back into the folder."""
    (folder / "link.csv").symlink_to(folder.parent / "secret.csv")
    (folder / "inside.csv").symlink_to(folder / "rows.csv")
    (folder / "away").symlink_to(folder.parent)
    own = Places([str(folder)])
    for named in ("link.csv", "inside.csv", "away/secret.csv", "away/in/rows.csv", "away/new.parquet"):
        assert "a symbolic link stands on the way to it" in refused(own, str(folder / named))


def test_the_folder_itself_may_be_reached_by_a_link(folder: Path) -> None:
    """The operator named it; files are told by where it leads."""
    (folder.parent / "alias").symlink_to(folder)
    assert Places([str(folder.parent / "alias")]).allowed(str(folder / "rows.csv")) == folder / "rows.csv"


@pytest.mark.parametrize("swapped", ["rows.csv", "deep"])
def test_a_link_that_is_put_there_after_the_check_is_not_followed(
    folder: Path, swapped: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each step between the check and the opening."""
    own = Places([str(folder)])
    named = str(folder / ("rows.csv" if swapped == "rows.csv" else "deep/rows.jsonl"))
    assert own.allowed(named)
    true, opened_parts = os.open, []

    def swapping(path: Any, *given: Any, **how: Any) -> int:
        opened_parts.append(path)
        if str(path) == swapped:
            (folder / swapped).rename(folder / "moved")
            (folder / swapped).symlink_to(folder.parent / ("secret.csv" if swapped == "rows.csv" else "inner"))
        return true(path, *given, **how)

    monkeypatch.setattr(os, "open", swapping)
    with (
        pytest.raises(BatchFileError, match="a symbolic link, or no folder, stands on the way"),
        opened(named, places=own),
    ):
        pass
    assert swapped in opened_parts


def test_what_is_no_regular_file_is_not_opened(folder: Path) -> None:
    os.mkfifo(folder / "pipe.csv")
    own = Places([str(folder)])
    for name, told in {"pipe.csv": "it is a FIFO", "deep": "it is a directory", "none.csv": "No such file"}.items():
        with pytest.raises(BatchFileError, match=told), opened(str(folder / name), places=own):
            pass


OWN = ("s3://bucket/in/", "https://Files.Example:8443/batches", "gs://whole", "memory://in")


@pytest.mark.parametrize(
    ("url", "same"),
    [
        ("s3://bucket/in/a.csv", None),
        ("S3://bucket/in/deep/a.csv", "s3://bucket/in/deep/a.csv"),
        ("https://FILES.example:8443/batches/a.csv", "https://files.example:8443/batches/a.csv"),
        ("gs://whole/a.csv", None),
        ("gs://whole/deep/a.csv", None),
        ("s3://bucket/in/a=b,c+d.csv", None),
    ],
)
def test_a_url_below_a_prefix_is_allowed(url: str, same: str | None) -> None:
    assert Places(OWN).allowed(url) == (same or url)


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket/inner/a.csv",
        "s3://bucket/a.csv",
        "s3://bucket2/in/a.csv",
        "s3://bucket/in/../a.csv",
        "s3://bucket/in/%2e%2e/a.csv",
        "s3://bucket/in/%2E./a.csv",
        "s3://bucket/in/..%2fa.csv",
        "s3://bucket/in/..\\a.csv",
        "s3://bucket/in/./../a.csv",
        "s3://bucket//in/a.csv",
        "s3://bucket/in//a.csv",
        "s3:///bucket/in/a.csv",
        "s3://ann@bucket/in/a.csv",
        "s3://ann:pw@bucket/in/a.csv",
        "s3://bucket/in/a.csv?versionId=pw",
        "s3://bucket/in/a.csv#pw",
        "s3://bucket/in/a\n.csv",
        "s3://bucket/in/a b.csv",
        "gs://bucket/in/a.csv",
        "http://files.example:8443/batches/a.csv",
        "https://files.example/batches/a.csv",
        "https://files.example:8443/batchesother/a.csv",
        "https://files.example:8443@evil.example/batches/a.csv",
        "https://files.example:8443.evil.example/batches/a.csv",
        "https://evil.example/https://files.example:8443/batches/a.csv",
        "https:/files.example:8443/batches/a.csv",
        "simplecache::s3://bucket/in/a.csv",
        "s3://bucket/in/a.zip::https://evil.example/",
        "file:///bucket/in/a.csv",
        "reference://bucket/in/a.csv",
        "s3://",
    ],
)
def test_a_url_that_leads_elsewhere_is_refused(url: str) -> None:
    assert "pw" not in refused(Places(OWN), url)


def test_a_url_of_a_place_is_read(folder: Path) -> None:
    system = fsspec.filesystem("memory")
    system.pipe("/in/rows.csv", ROWS.encode())
    assert tasks("memory://in/rows.csv", Places(OWN)) == ["a"]
    system.store.clear()


@pytest.mark.parametrize(
    "named", ["relative", "ftp://host/a", "s3://bucket/../b", "https://ann:pw@host/a", "a\0", "~nobody-there/a"]
)
def test_a_place_that_is_none_is_told(named: str) -> None:
    with pytest.raises(BatchFileError) as error:
        Places([named])
    assert "pw" not in str(error.value)


@SLOW
@given(
    st.sampled_from(
        ["", "/", "file://", "memory://", "memory://in/", "s3://bucket/in/", "https://files.example:8443/"]
    ),
    st.text(st.sampled_from("a./\\%2e:@?#[]*~ \0\n\u2028-") | st.characters(codec="utf-8"), max_size=12),
)
def test_whatever_is_named_nothing_else_is_raised_and_nothing_lies_elsewhere(begin: str, end: str) -> None:
    own = Places(["/nowhere/in", *OWN])
    try:
        found = own.allowed(begin + end)
    except BatchFileError as error:
        assert str(error)
    else:
        assert str(found).startswith(
            ("/nowhere/in/", "s3://bucket/in", "https://files.example:8443/batches", "memory://in")
        )
    with pytest.raises(BatchFileError), opened(begin + end, input_format="csv", places=own):
        pass


def test_files_are_found_by_pattern(folder: Path) -> None:
    (folder / "link.csv").symlink_to(folder / "rows.csv")
    (folder / "away").symlink_to(folder.parent / "inner")
    (folder / "folder.csv").mkdir()
    own = Places([str(folder)])
    rows, more, deep = (str(folder / name) for name in ("rows.csv", "deep/er/more.csv", "deep/rows.jsonl"))
    assert own.matching("*.csv") == [rows]
    assert own.matching("**/*.csv") == [more, rows]
    assert own.matching("**/rows.*") == [deep, rows]
    assert own.matching("deep/*/more.csv") == [more]
    assert own.matching(str(folder / "*.csv")) == [rows]
    assert own.matching("[rx]ows.csv") == own.matching("r?ws.csv") == [rows]
    assert own.matching("none*") == own.matching("away/*.csv") == own.matching("link.csv") == []
    assert all(own.allowed(one) for one in own.matching("**"))
    assert Places([str(folder), str(folder / "deep")]).matching("**/more.csv") == [more]


def test_patterns_lead_nowhere_else_and_have_bounds(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Places([str(folder), "memory://in"])
    for pattern in ("../*.csv", "deep/../../*.csv", str(folder.parent / "*.csv"), "memory://in/*", "a\0", "/*"):
        with pytest.raises(BatchFileError):
            own.matching(pattern)
    with pytest.raises(BatchFileError, match="lies in no folder"):
        Places(OWN).matching("*.csv")
    monkeypatch.setattr(places, "MAX_MATCHES", 2)
    assert len(own.matching("**/*.csv")) == 2
    with pytest.raises(BatchFileError, match="more than 2 files match"):
        own.matching("**")
    monkeypatch.setattr(places, "MAX_SEEN", 2)
    with pytest.raises(BatchFileError, match="more than 2 files to look at"):
        own.matching("none*")
