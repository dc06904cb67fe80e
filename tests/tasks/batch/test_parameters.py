"""Parameters of the flow `batch`: whoever reaches Prefect writes them, so whatever is wrong names its parameter."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from tasks.batch.records import BatchFileError
from tasks.council.exceptions import InvalidRequest, WrongUse
from tasks.council.models import Budget

pytestmark = pytest.mark.usefixtures("importable_prefect")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The operator's only place, with a file in it."""
    (tmp_path / "rows.csv").write_text("task\none\n")
    monkeypatch.setenv("CONCLAVE_BATCHES", str(tmp_path))
    return tmp_path


def given(folder: Path, **more: Any) -> dict[str, Any]:
    """The parameters as the flow has them, with its defaults."""
    from flows.batch import batch

    defaults = {name: one.default for name, one in inspect.signature(batch.fn).parameters.items()}
    files = {"input_file": str(folder / "rows.csv"), "output_file": str(folder / "out.parquet")}
    return {**defaults, **files, **more}


def test_the_defaults_are_a_batch(folder: Path) -> None:
    from tasks.batch.parameters import file_batch

    found = file_batch(given(folder))
    assert (found.source.named, found.output) == (str(folder / "rows.csv"), str(folder / "out.parquet"))
    assert (found.asked, found.order, found.retry, found.dedupe, found.stop_at_bad) == (
        {},
        "completion",
        "none",
        False,
        False,
    )
    assert [row.item and row.item.task for row in found.source.rows()] == ["one"]


def test_what_is_asked_is_taken_as_it_is_given(folder: Path) -> None:
    """Of a form a budget is a model, else an object; either is one of the request."""
    from tasks.batch.parameters import file_batch

    asked = {"council": "qa", "strategy": "rank", "members": 2, "requirements": ["short"], "window": 7}
    for budget in (Budget(max_calls=3), {"max_calls": 3}):
        found = file_batch(given(folder, **asked, budget=budget))
        assert {name: value for name, value in found.asked.items() if name != "budget"} == asked
        assert found.asked["budget"]["max_calls"] == 3


def test_every_parameter_is_used(folder: Path) -> None:
    """One that nobody reads would do nothing, and nobody would know."""
    from flows import batch as flow
    from tasks.batch.parameters import ASKED, file_batch

    source = inspect.getsource(inspect.getmodule(file_batch)) + inspect.getsource(flow)  # type: ignore[arg-type]
    assert [name for name in given(folder) if source.count(f'"{name}"') + source.count(f"{name} is") == 0] == []
    assert set(ASKED) <= set(given(folder))


WRONG: dict[str, tuple[Any, ...]] = {
    "input_file": (None, 7, ["a.csv"], {"path": "a.csv"}),
    "output_file": (None, 7, True),
    **dict.fromkeys(("task_column", "task_template", "messages_column", "id_column"), (7, ["task"], {})),
    **dict.fromkeys(("encoding", "delimiter", "sheet", "input_format", "output_format"), (7, ["csv"])),
    **dict.fromkeys(("coerce", "keep_duplicates", "stop_at_bad_rows", "dedupe"), (None, 1, "yes")),
    **dict.fromkeys(("resume", "replace", "retry_failed"), (None, 0, "no")),
    "context_columns": ("a,b", [7], {"a": 1}, [["a"]], 7, True),
    "order": (None, "random", 7, ["input"]),
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_what_is_of_another_kind_is_refused_by_its_name(folder: Path, name: str, value: Any) -> None:
    from tasks.batch.parameters import file_batch

    with pytest.raises(InvalidRequest) as refused:
        file_batch(given(folder, **{name: value}))
    assert refused.value.field == name


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"input_file": "/etc/passwd"}, "/etc/passwd does not lie in a folder of CONCLAVE_BATCHES"),
        ({"output_file": "/tmp/../etc/out.csv"}, "without `..`"),
        ({"input_file": "rows.csv"}, "absolute path"),
        ({"output_file": "s3://bucket/out.csv"}, "begins with no URL of CONCLAVE_BATCHES"),
        ({"output_file": "{}/out.doc"}, "out.doc"),
        ({"output_format": "word"}, "word"),
        ({"output_file": "{}/rows.csv"}, "output_file: is input_file itself"),
        ({"task_column": "a", "task_template": "{{{{b}}}}"}, "exclude one another"),
        ({"task_template": "{{{{"}, "template"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(folder: Path, more: dict[str, str], told: str) -> None:
    from tasks.batch.parameters import file_batch

    named = {name: value.format(folder) for name, value in more.items()}
    with pytest.raises(WrongUse) as refused:
        file_batch(given(folder, **named))
    assert told in str(refused.value)


def test_where_the_operator_named_no_place_no_file_may_be_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.batch.parameters import file_batch

    monkeypatch.delenv("CONCLAVE_BATCHES")
    with pytest.raises(BatchFileError, match="no file may be named on this worker"):
        file_batch(given(folder))


def test_who_is_told_of_failures_is_named_by_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.batch.parameters import notification

    monkeypatch.delenv("CONCLAVE_NOTIFY", raising=False)
    assert notification() is None
    monkeypatch.setenv("CONCLAVE_NOTIFY", "")
    assert notification() is None
    monkeypatch.setenv("CONCLAVE_NOTIFY", "slack-webhook/ops")
    assert notification() == "slack-webhook/ops"
