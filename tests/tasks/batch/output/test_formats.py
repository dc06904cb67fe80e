"""What OUTPUT is in each format: all rows, all columns, whatever a model wrote, for whoever reads it."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq
import pytest

from tasks.batch.files import opened
from tasks.batch.output import formats
from tasks.batch.output.folder import open_output
from tasks.batch.output.formats import ParquetRows, format_of
from tasks.batch.output.rows import RowResult
from tasks.batch.output.schema import NESTED, SCHEMA, record_of, table_of
from tasks.batch.records import BatchFileError
from tasks.council.decisions import Synthesis
from tasks.council.models import MemberStatus
from tasks.council.proposal import Usage
from tests.tasks.batch.output.finished import bad, decided, failed, row, voted
from tests.tasks.batch.output.outputs import Outputs

HOSTILE = 'a "quote"; \u2028 \x85 \x1e \r\n =1+1\tlone \ud83d, joined \ud83d\ude00, NUL \0, comma'
READ_BACK = 'a "quote"; \u2028 \x85 \x1e \r\n =1+1\tlone \ufffd, joined \U0001f600, NUL \ufffd, comma'
ROWS = (
    row(1, decided(HOSTILE), id=HOSTILE, deliberation_id="d\ud83d"),
    row(2, failed(HOSTILE), copied_from="\ud83d"),
    bad(3, id=""),
    row(4, error="budget: 10 calls are used up"),
    row(5, voted("="), id="-5"),
)


def made(outputs: Outputs, name: str, *rows: RowResult, **how: Any) -> Path:
    """The output of that name, of these rows."""
    with outputs.open(name, **how) as output:
        for one in rows:
            output.write(one)
        output.finish(len(rows))
    return outputs.folder / name


def json_lines(path: Path) -> list[dict[str, Any]]:
    """Objects of a file, whose lines may end wherever Unicode ends one."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def csv_rows(path: Path) -> list[dict[str, str]]:
    """Records of a CSV file, by column."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, strict=True))


# --- a row ----------------------------------------------------------------------------------------


def test_a_decided_row_says_all_that_there_is() -> None:
    record = record_of(row(1, decided("Do it."), copied_from="x"))
    assert list(record) == SCHEMA.names
    proposals, ballots, members = (record.pop(name) for name in NESTED)
    assert record.pop("completed_at").isoformat() == "2026-01-02T03:04:05+00:00"
    assert record == {
        "id": "id-1",
        "row": 1,
        "line": 2,
        "item_id": "id-1",
        "deliberation_id": "d-1",
        "status": "COMPLETED",
        "degraded": False,
        "decided_by": "ballots",
        "decision": "Do it.",
        "answer": None,
        "winner_id": "a",
        "error": None,
        "members": 3,
        "asked": 3,
        "received": 3,
        "calls": 6,
        "winner_score": 1.0,
        "agreement": 1.0,
        "vote_share": None,
        "usage_prompt_tokens": 30,
        "usage_completion_tokens": 15,
        "usage_total_tokens": 45,
        "duration_ms": 1500,
        "council": "dev",
        "council_digest": "c" * 64,
        "strategy": "rank",
        "model": "m-a",
        "engine": "vllm",
        "copied_from": "x",
        "key": f"{1:064x}",
    }
    assert proposals[0] == {
        "author_id": "a",
        "author_role": "DEV",
        "rank": 1,
        "score": 0.5,
        "votes": 1.0,
        "model": "m-a",
        "content": "Do it.",
        "tokens": 5,
    }
    assert ballots == [
        {"voter": "a", "ranking": ["b", "c"]},
        {"voter": "b", "ranking": ["a", "c"]},
        {"voter": "c", "ranking": ["a", "b"]},
    ]
    assert members[2] == {"agent_id": "c", "status": "ok", "reason": None}


def test_a_row_without_a_result_has_every_column() -> None:
    record = record_of(bad(3))
    assert list(record) == SCHEMA.names
    assert {name: value for name, value in record.items() if value not in (None, [])} == {
        "id": "id-3",
        "row": 3,
        "line": 4,
        "key": "",
        "status": "INVALID",
        "error": "task: is empty",
    }


def test_the_model_is_the_one_that_wrote_the_decision() -> None:
    written = Synthesis(
        chairman_id="c", status=MemberStatus.OK, reason=None, content="S", model="m-chair", sources=("a",)
    )
    assert record_of(row(1, decided(decided_by="synthesis", synthesis=written)))["model"] == "m-chair"
    assert record_of(row(1, failed()))["model"] is None


def test_a_vote_of_closed_answers_has_its_share() -> None:
    record = record_of(row(1, voted()))
    assert (record["answer"], round(record["vote_share"], 3)) == ("yes", 0.667)


def test_numbers_that_no_column_takes_are_bounded() -> None:
    record = record_of(row(1, decided(usage=Usage(prompt_tokens=10**30, completion_tokens=1))))
    assert record["usage_prompt_tokens"] == record["usage_total_tokens"] == 2**63 - 1
    table_of([record])


def test_every_column_is_in_the_docs() -> None:
    text = (Path(__file__).parents[4] / "docs" / "batches.md").read_text()
    table = text.split("| column | type | what |")[1].split("\n\n")[0]
    told = [cell.split("|")[1] for cell in table.splitlines()[2:]]
    assert sorted(re.findall(r"`(\w+)`", " ".join(told))) == sorted(SCHEMA.names)


# --- formats --------------------------------------------------------------------------------------


def test_the_format_is_told_by_the_name_or_the_option() -> None:
    assert [format_of(name, None) for name in ("a.PARQUET", "a.pq", "a.jsonl", "a.ndjson", "b.x.csv")] == [
        "parquet",
        "parquet",
        "jsonl",
        "jsonl",
        "csv",
    ]
    assert format_of("a.jsonl", "openai") == "openai"
    assert format_of("a", "csv") == "csv"
    for name, given, told in (("a.xlsx", None, "a.xlsx: the end of its name"), ("a", "", "--output-format: ''")):
        with pytest.raises(BatchFileError, match=told):
            format_of(name, given)


def test_parquet_is_read_back_by_pyarrow_and_pandas(outputs: Outputs) -> None:
    path = made(outputs, "a.parquet", *ROWS)
    assert pq.read_schema(path).remove_metadata() == SCHEMA
    first, second, *_ = pq.read_table(path).to_pylist()
    assert (first["id"], first["decision"], first["proposals"][2]["content"]) == (READ_BACK,) * 3
    assert (first["deliberation_id"], second["error"], second["copied_from"]) == ("d\ufffd", READ_BACK, "\ufffd")
    frame = pd.read_parquet(path)
    assert frame["status"].tolist() == ["COMPLETED", "TIMEOUT", "INVALID", "PENDING", "COMPLETED"]
    assert frame["id"].tolist()[4] == "-5"
    assert frame["completed_at"].dtype == "datetime64[us, UTC]"


def test_jsonl_has_every_key_in_every_row_and_one_line_a_row_for_everybody(outputs: Outputs) -> None:
    path = made(outputs, "a.jsonl", *ROWS)
    assert path.read_bytes().count(b"\n") == 5
    found = json_lines(path)
    assert [list(one) for one in found] == [SCHEMA.names] * 5
    assert (found[0]["id"], found[0]["decision"], found[0]["proposals"][0]["content"]) == (READ_BACK,) * 3
    assert found[0]["completed_at"] == "2026-01-02T03:04:05.000Z"
    assert found[2]["proposals"] == []
    assert found[4]["id"] == "-5"
    assert pyarrow.json.read_json(path).num_rows == 5
    assert pd.read_json(path, lines=True, dtype=False)["decision"][0] == READ_BACK


def test_csv_is_read_back_by_csv_pandas_pyarrow_and_our_own_reader(outputs: Outputs) -> None:
    path = made(outputs, "a.csv", *ROWS)
    assert path.read_bytes().startswith(",".join(SCHEMA.names).encode() + b"\r\n")
    found = csv_rows(path)
    assert (found[0]["id"], found[0]["decision"]) == (READ_BACK, READ_BACK)
    assert json.loads(found[0]["proposals"])[1]["content"] == READ_BACK
    assert found[0]["degraded"] == "false"
    assert found[0]["winner_score"] == "1.0"
    assert (found[4]["id"], found[4]["answer"]) == ("'-5", "'=")
    assert (found[3]["decision"], found[3]["ballots"]) == ("", "[]")
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    assert frame["decision"].tolist() == [one["decision"] for one in found]
    options = pyarrow.csv.ParseOptions(newlines_in_values=True)
    assert pyarrow.csv.read_csv(path, parse_options=options).num_rows == 5
    with opened(path) as records:
        assert [one.values for one in records] == found


def test_csv_is_as_the_csv_module_writes_it(outputs: Outputs, tmp_path: Path) -> None:
    found = made(outputs, "a.csv", *ROWS)
    with (tmp_path / "b.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\r\n").writerows([SCHEMA.names, *(one.values() for one in csv_rows(found))])
    assert found.read_bytes() == (tmp_path / "b.csv").read_bytes()


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "'=", "''@"])
def test_no_text_is_a_formula_in_csv_and_one_quote_less_is_the_text(outputs: Outputs, first: str) -> None:
    text = f"{first}HYPERLINK(1)"
    found = csv_rows(made(outputs, "a.csv", row(1, decided(text), id=text, error=text, copied_from=text)))[0]
    for column in ("id", "decision", "error", "copied_from"):
        assert found[column] == f"'{text}"


@pytest.mark.parametrize("text", ["'quoted'", " = 1", "a=1", "5-3", "", "''"])
def test_other_texts_are_as_they_are_in_csv(outputs: Outputs, text: str) -> None:
    assert csv_rows(made(outputs, "a.csv", row(1, decided(text))))[0]["decision"] == text


def test_openai_is_two_files_of_one_form(outputs: Outputs) -> None:
    path = made(outputs, "a.jsonl", *ROWS, output_format="openai")
    (first, second), others = json_lines(path), json_lines(Path(f"{path}.errors.jsonl"))
    assert {tuple(one) for one in (first, second, *others)} == {("id", "custom_id", "response", "error")}
    assert (first["custom_id"], second["custom_id"]) == (READ_BACK, "-5")
    assert (first["error"], first["response"]["status_code"]) == (None, 200)
    assert first["response"]["request_id"]
    body = first["response"]["body"]
    assert (body["object"], body["model"], body["created"]) == ("chat.completion", "dev", 1767323045)
    assert body["choices"][0]["message"] == {"role": "assistant", "content": READ_BACK, "refusal": None}
    assert body["usage"] == {"prompt_tokens": 30, "completion_tokens": 15, "total_tokens": 45}
    assert (body["conclave"]["engine"], body["conclave"]["degraded"]) == ("vllm", False)
    assert [one["error"] for one in others] == [
        {"code": "timeout", "message": READ_BACK},
        {"code": "invalid", "message": "task: is empty"},
        {"code": "pending", "message": "budget: 10 calls are used up"},
    ]
    assert len({one["id"] for one in (first, second, *others)}) == 5


def test_the_second_file_of_openai_is_not_overwritten_and_not_left(outputs: Outputs) -> None:
    errors = outputs.folder / "a.jsonl.errors.jsonl"
    errors.write_text("mine")
    assert "a.jsonl.errors.jsonl exists" in outputs.refused("a.jsonl", output_format="openai")
    made(outputs, "a.jsonl", ROWS[0], output_format="openai", replace=True)
    assert errors.read_text() == ""


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.csv"])
def test_texts_and_names_of_all_kinds_are_there_in_the_order_of_the_input(outputs: Outputs, name: str) -> None:
    with outputs.open(name) as output:
        for one in reversed(ROWS):
            output.write(one)
        output.finish(5, order="input")
    read = {"a.parquet": pq.read_table, "a.jsonl": pyarrow.json.read_json}
    if name == "a.csv":
        assert [one["row"] for one in csv_rows(outputs.folder / name)] == ["1", "2", "3", "4", "5"]
    else:
        assert read[name](outputs.folder / name).column("row").to_pylist() == [1, 2, 3, 4, 5]


def test_row_groups_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "GROUP_ROWS", 10)
    table = table_of([record_of(row(number)) for number in range(1, 26)])
    with (tmp_path / "a.parquet").open("wb") as file:
        writer = ParquetRows(file)
        for size in (1, 3, 21):
            writer.write(table.slice(0, size))
        writer.close()
    found = pq.ParquetFile(tmp_path / "a.parquet").metadata
    assert found.num_rows == 25
    assert max(found.row_group(number).num_rows for number in range(found.num_row_groups)) <= 10
    assert found.row_group(0).column(0).compression == "ZSTD"


def test_large_rows_are_written(outputs: Outputs) -> None:
    path = made(outputs, "a.jsonl", row(1, decided("x" * 5_000_000)), row(2, decided("y")))
    assert [len(one["decision"]) for one in json_lines(path)] == [5_000_000, 1]


# --- URLs -----------------------------------------------------------------------------------------


@pytest.fixture
def memory() -> Any:
    """fsspec's file system in memory, empty."""
    files = fsspec.filesystem("memory")
    files.store.clear()
    yield files
    files.store.clear()


def opened_url(outputs: Outputs, url: str, **how: Any) -> Any:
    return open_output(url, {}, parts_in=outputs.folder, **how)


def test_a_url_gets_the_finished_file_and_nothing_before(outputs: Outputs, memory: Any) -> None:
    with opened_url(outputs, "memory://box/a.jsonl", output_format="openai") as output:
        output.write(ROWS[0])
        output.write(bad(2))
        output.flush()
        assert memory.find("/") == []
        assert output.finish(2).path == "memory://box/a.jsonl"
    assert memory.find("/") == ["/box/a.jsonl", "/box/a.jsonl.errors.jsonl"]
    assert json.loads(memory.cat("/box/a.jsonl"))["custom_id"] == READ_BACK
    assert list(outputs.folder.iterdir()) == []
    with pytest.raises(BatchFileError, match=r"memory://box/a\.jsonl exists"):
        opened_url(outputs, "memory://box/a.jsonl")


def test_parts_of_a_url_are_resumed(outputs: Outputs, memory: Any) -> None:
    with opened_url(outputs, "memory://box/a.csv") as output:
        output.write(row(1, decided()))
    with opened_url(outputs, "memory://box/b.csv", resume=True) as output:
        assert list(output.standing()) == []
    with opened_url(outputs, "memory://box/a.csv", resume=True) as output:
        assert len(list(output.standing())) == 1
        output.finish(1)
    assert memory.find("/") == ["/box/a.csv"]


def test_a_url_that_takes_no_file_is_told_and_the_parts_stay(
    outputs: Outputs, memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put_file(*_: Any, **__: Any) -> None:
        raise RuntimeError("SlowDown: come back later")

    monkeypatch.setattr(type(memory), "put_file", put_file)
    with opened_url(outputs, "memory://box/a.csv") as output:
        output.write(row(1, decided()))
        with pytest.raises(BatchFileError, match=r"memory://box/a\.csv: RuntimeError: SlowDown: come back later"):
            output.finish(1)
    monkeypatch.undo()
    with opened_url(outputs, "memory://box/a.csv", resume=True) as output:
        output.finish(1)
    assert memory.find("/") == ["/box/a.csv"]


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("no-such-scheme://a/b.csv", "no-such-scheme://a/b.csv: ValueError: Protocol not known"),
        ("https://user:word@host/a.csv?key=1", "^https://host/a.csv: cannot be written to"),
        ("simplecache::memory://a/b.csv", "cannot be written to"),
        ("file:///tmp/a.csv", "give its path alone"),
        ("memory://box/", "memory://box/ names no file"),
        ("memory://box/a.xlsx", "a.xlsx: the end of its name"),
    ],
)
def test_a_url_that_cannot_be_written_is_refused(outputs: Outputs, memory: Any, url: str, told: str) -> None:
    with pytest.raises(BatchFileError, match=told):
        opened_url(outputs, url)
    assert list(outputs.folder.iterdir()) == []


def test_a_folder_at_a_url_is_refused(outputs: Outputs, memory: Any) -> None:
    memory.pipe("/box/a.csv/b", b"")
    with pytest.raises(BatchFileError, match="is a folder"):
        opened_url(outputs, "memory://box/a.csv", replace=True)
