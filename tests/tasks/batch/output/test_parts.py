"""Parts and their manifest: what was written is there after whatever happens, and the last result of a row holds."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.batch.output.errors import OutputError, OutputFinished, OutputInUse
from tasks.batch.output.folder import Limits
from tasks.batch.output.index import Place
from tasks.batch.output.manifest import MAX_STATE
from tasks.batch.output.order import in_input_order
from tasks.batch.output.schema import SCHEMA, record_of, table_of
from tasks.batch.records import BatchFileError
from tests.tasks.batch.output.finished import bad, decided, failed, row
from tests.tasks.batch.output.outputs import ASKED, Outputs

TWO = Limits(rows=2)


def test_a_part_is_written_at_so_many_rows_characters_or_seconds(outputs: Outputs) -> None:
    with outputs.open(limits=Limits(rows=3, characters=1_000, seconds=10)) as output:
        for number in (1, 2):
            output.write(row(number, decided("short")))
        assert outputs.part_names() == []
        output.write(row(3, decided("short")))
        assert outputs.part_names() == ["part-000001.parquet"]
        output.write(row(4, decided("x" * 1_000)))
        assert len(outputs.part_names()) == 2
        output.write(row(5))
        outputs.now = 9.9
        output.flush_due()
        assert len(outputs.part_names()) == 2
        outputs.now = 10.0
        output.flush_due()
        assert len(outputs.part_names()) == 3
        output.write(row(6))
        outputs.now = 20.0
        output.write(row(7))
        assert len(outputs.part_names()) == 4
    assert [part["rows"] for part in outputs.manifest()["parts"]] == [3, 1, 1, 2]
    assert outputs.manifest()["counts"] == {"COMPLETED": 4, "PENDING": 3}


def test_what_is_held_is_written_also_when_the_batch_fails(outputs: Outputs) -> None:
    with pytest.raises(ZeroDivisionError), outputs.open() as output:
        output.write(row(1, decided()))
        raise ZeroDivisionError
    with outputs.open(resume=True) as output:
        assert [one.id for one in output.standing()] == ["id-1"]


def test_standing_is_each_row_once_with_its_last_result(outputs: Outputs) -> None:
    outputs.written(row(1, failed()), row(2, decided()), row(1, decided()), bad(3), limits=TWO)
    with outputs.open(resume=True) as output:
        assert [(one.id, one.status, one.part) for one in output.standing()] == [
            ("id-2", "COMPLETED", 1),
            ("id-1", "COMPLETED", 2),
            ("id-3", "INVALID", 2),
        ]
        assert output.finish(3).rows == 3
    assert outputs.column("status") == ["COMPLETED", "COMPLETED", "INVALID"]


def test_equal_contents_under_two_ids_and_equal_ids_with_two_contents_are_two_rows(outputs: Outputs) -> None:
    outputs.written(row(1, key="k", id="x"), row(2, key="k", id="y"), row(3, key="l", id="x"))
    with outputs.open(resume=True) as output:
        assert [(one.id, one.key) for one in output.standing()] == [("x", "k"), ("y", "k"), ("x", "l")]


def test_an_id_and_a_key_are_not_mixed_up(outputs: Outputs) -> None:
    outputs.written(row(1, id="a", key="bc"), row(2, id="ab", key="c"), row(3, id="", key=""), row(4, id="", key=""))
    with outputs.open(resume=True) as output:
        assert output.finish(4).rows == 4


def test_an_output_that_is_there_is_refused(outputs: Outputs) -> None:
    (outputs.folder / "a.parquet").write_text("mine")
    assert "a.parquet exists; --replace writes another" in outputs.refused()
    assert not outputs.parts().exists()
    with outputs.open(replace=True) as output:
        output.write(row(1, decided()))
        assert (outputs.folder / "a.parquet").read_text() == "mine"
        output.finish(1)
    assert outputs.column("id") == ["id-1"]


def test_parts_that_are_there_are_neither_mixed_nor_lost(outputs: Outputs) -> None:
    outputs.written(row(1, decided()))
    assert "--resume goes on with it, --replace begins anew" in outputs.refused()
    with outputs.open(replace=True) as output:
        assert list(output.standing()) == []
    assert "give one of both" in outputs.refused(resume=True, replace=True)


def test_a_resume_with_other_options_names_what_differs(outputs: Outputs) -> None:
    outputs.written(row(1, decided()))
    other = {**ASKED, "council": "ops", "columns": {"task": "title", "id": None}}
    told = outputs.refused(asked=other, resume=True)
    assert 'council was "dev", is "ops"; ' in told
    assert "columns.id was not given, is null; columns.task was" in told
    with outputs.open(resume=True) as output:
        assert len(list(output.standing())) == 1


def test_a_resume_of_nothing_begins_and_one_of_what_is_finished_says_so(outputs: Outputs) -> None:
    with outputs.open(resume=True) as output:
        output.write(row(1, decided()))
        output.finish(1)
    assert not outputs.parts().exists()
    with pytest.raises(OutputFinished, match="is finished"):
        outputs.open(resume=True)
    assert not outputs.parts().exists()


def test_parts_are_kept_where_that_is_asked_and_a_failed_row_is_asked_again(outputs: Outputs) -> None:
    with outputs.open() as output:
        output.write(row(1, failed()))
        output.write(row(2, decided()))
        output.finish(2, keep_parts=True)
    assert outputs.column("status") == ["TIMEOUT", "COMPLETED"]
    with outputs.open(resume=True) as output:
        output.write(row(1, decided("Now.")))
        output.finish(2)
    assert outputs.column("decision") == ["Do it.", "Now."]
    assert not outputs.parts().exists()


def test_a_kill_while_parts_go_costs_nothing(outputs: Outputs, tmp_path: Path) -> None:
    """OUTPUT is there, the manifest is gone, parts are left."""
    with outputs.open() as output:
        output.write(row(1, decided()))
        output.finish(1, keep_parts=True)
    (outputs.parts() / "manifest.json").unlink()
    with pytest.raises(OutputFinished):
        outputs.open(resume=True)
    (outputs.folder / "a.parquet").unlink()
    assert "has parts and no manifest.json" in outputs.refused(resume=True)
    with outputs.open(replace=True) as output:
        assert outputs.part_names() == []
        assert list(output.standing()) == []


@pytest.mark.parametrize("how", ["cut", "changed", "gone"])
def test_a_part_that_is_not_what_was_written_is_told_and_its_rows_are_not_done(outputs: Outputs, how: str) -> None:
    outputs.written(*(row(number, decided()) for number in range(1, 6)), limits=TWO)
    path = outputs.parts() / "part-000002.parquet"
    content = path.read_bytes()
    made = {"cut": content[:-9], "changed": content[:50] + b"?" + content[51:]}
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(made[how])
    with outputs.open(resume=True) as output:
        assert len(output.told) == 1
        assert output.told[0].startswith("part-000002.parquet ")
        assert output.told[0].endswith("its 2 rows count as not done")
        assert [one.id for one in output.standing()] == ["id-1", "id-2", "id-5"]
        output.write(row(3, decided()))
        output.write(row(4, decided()))
        output.finish(5)
    assert sorted(outputs.column("row")) == [1, 2, 3, 4, 5]


def test_a_part_that_the_manifest_does_not_name_is_taken_in_where_it_is_whole(outputs: Outputs) -> None:
    """A kill between its rename and the manifest's."""
    outputs.written(row(1, decided()), row(2, decided()), row(3, decided()), limits=Limits(rows=1))
    before = outputs.manifest()
    with outputs.open(resume=True) as output:
        output.write(row(2, decided("Again.")))
    path = outputs.parts() / "manifest.json"
    (outputs.parts() / "part-000005.parquet").write_bytes(b"PAR1 half")
    (outputs.parts() / ".part-000006.parquet.tmp").write_bytes(b"PAR1")
    path.write_text(json.dumps(before))
    with outputs.open(resume=True) as output:
        assert output.told == ["part-000005.parquet is no whole part of this batch: it is set aside"]
        assert [(one.id, one.part) for one in output.standing()] == [("id-1", 1), ("id-3", 3), ("id-2", 4)]
        assert output.counts == {"COMPLETED": 4}
        assert not list(outputs.parts().glob(".*"))
        output.finish(3)
    assert not outputs.parts().exists()


def test_a_part_of_another_batch_is_not_taken_in(outputs: Outputs) -> None:
    outputs.written(row(1, decided()), name="other.parquet")
    outputs.written(row(7, decided()))
    shutil.copy(outputs.parts("other.parquet") / "part-000001.parquet", outputs.parts() / "part-000002.parquet")
    with outputs.open(resume=True) as output:
        assert [one.id for one in output.standing()] == ["id-7"]
        assert "set aside" in output.told[0]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 9}', '{"format": 1}', '{"format": null}', "\xff"])
def test_a_manifest_that_is_none_is_told_and_nothing_is_lost(outputs: Outputs, content: str) -> None:
    outputs.written(row(1, decided()))
    (outputs.parts() / "manifest.json").write_text(content, encoding="latin-1")
    told = outputs.refused(resume=True)
    assert "manifest.json" in told
    assert "--replace begins anew" in told
    assert outputs.part_names() == ["part-000001.parquet"]


def test_what_the_engine_keeps_is_there_after_a_resume(outputs: Outputs) -> None:
    with outputs.open() as output:
        output.state("budget", {"calls": 3})
        batch = output.batch
        with pytest.raises(BatchFileError, match="has to be JSON"):
            output.state("budget", {1, 2})
        with pytest.raises(BatchFileError, match="state 'large' has"):
            output.state("large", "x" * MAX_STATE)
    with outputs.open(resume=True) as output:
        assert output.states == {"budget": {"calls": 3}}
        assert output.batch == batch


def test_rows_that_are_missing_twice_or_too_many_are_named_and_nothing_is_made(outputs: Outputs) -> None:
    outputs.written(row(1, decided()), row(2, decided()), row(2, decided(), id="other"), row(9, decided()))
    with outputs.open(resume=True) as output:
        with pytest.raises(BatchFileError) as error:
            output.finish(5)
        assert "a.parquet is not written: its parts have 4 rows, the input 5; missing are rows 3, 4, 5;" in str(
            error.value
        )
        assert str(error.value).endswith("there twice are rows 2; not in the input are rows 9")
    assert not (outputs.folder / "a.parquet").exists()
    with outputs.open(resume=True) as output:
        assert len(list(output.standing())) == 4


def test_many_missing_rows_are_named_in_short(outputs: Outputs) -> None:
    with outputs.open() as output, pytest.raises(BatchFileError, match=r"8, 9, 10 and 90 more$"):
        output.finish(100)


def test_rows_that_moved_in_the_input_have_the_numbers_of_now(outputs: Outputs) -> None:
    """One was put before them, one is gone, a bad one was read anew; nothing is asked again."""
    outputs.written(row(1, decided("one")), row(2, decided("two")), row(3, decided("three")), bad(4), limits=TWO)
    places = [Place(f"id-{old}", f"{old:064x}", now, 10 * now) for old, now in ((3, 2), (1, 3))]
    with outputs.open(resume=True) as output:
        output.write(row(1, decided("new"), id="new", key="new"))
        output.write(bad(4, id="id-4"))
        places += [Place("new", "new", 1, 10), Place("id-4", "", 4, 40)]
        output.finish(4, order="input", places=places)
    assert outputs.column("decision") == ["new", "three", "one", None]
    assert outputs.column("row") == [1, 2, 3, 4]
    assert outputs.column("line") == [10, 20, 30, 40]


def test_places_without_a_result_and_double_ones_are_told(outputs: Outputs) -> None:
    outputs.written(row(1, decided()))
    with outputs.open(resume=True) as output:
        with pytest.raises(BatchFileError, match="missing are rows 2"):
            output.finish(2, places=[Place("id-1", f"{1:064x}", 1, 1), Place("x", "y", 2, 2)])
        with pytest.raises(BatchFileError, match="rows 1 and 2 of the input have one id and one key"):
            output.finish(2, places=[Place("id-1", f"{1:064x}", 1, 1), Place("id-1", f"{1:064x}", 2, 2)])
        with pytest.raises(BatchFileError, match="its parts have 0 rows"):
            output.finish(1, places=[])


def test_an_empty_batch_makes_an_empty_output(outputs: Outputs) -> None:
    for order in ("completion", "input"):
        with outputs.open(f"{order}.parquet") as output:
            assert output.finish(0, order=order).rows == 0
        assert outputs.rows(f"{order}.parquet") == []


def test_the_order_of_the_input(outputs: Outputs) -> None:
    numbers = [(7 * number) % 101 for number in range(1, 101)]
    outputs.written(*(row(number, decided(str(number))) for number in numbers), limits=Limits(rows=9))
    with outputs.open(resume=True) as output:
        output.finish(100, order="input")
    assert outputs.column("row") == list(range(1, 101))
    assert outputs.column("decision") == [str(number) for number in range(1, 101)]


def test_the_order_of_the_input_where_it_takes_many_ranges(tmp_path: Path) -> None:
    """Each is a file, and none of them is left, whoever stops reading."""
    numbers = [(7 * number) % 101 for number in range(1, 101)]
    chunks = [table_of([record_of(row(number, decided()))]) for number in numbers]
    found = list(in_input_order(chunks, 100, 1_000, tmp_path, largest=100))
    assert len(found) == 10
    assert pa.concat_tables(found).column("row").to_pylist() == list(range(1, 101))
    assert list(tmp_path.iterdir()) == []
    stopped = in_input_order(chunks, 100, 1_000, tmp_path, largest=100)
    assert next(stopped).num_rows == 10
    assert len(list(tmp_path.iterdir())) > 1
    stopped.close()
    assert list(tmp_path.iterdir()) == []


def test_two_batches_over_one_output(outputs: Outputs) -> None:
    with outputs.open() as output:
        for how in ({}, {"resume": True}, {"replace": True}):
            with pytest.raises(OutputInUse, match=r"is being written by another batch \(process"):
                outputs.open(**how)
        output.write(row(1, decided()))
    with outputs.open(resume=True) as output:
        assert len(list(output.standing())) == 1


def test_a_link_a_folder_and_a_device_are_no_output(outputs: Outputs, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("of somebody else")
    (tmp_path / "link.parquet").symlink_to(tmp_path / "other")
    (tmp_path / "dangling.parquet").symlink_to(tmp_path / "nothing")
    (tmp_path / "folder.parquet").mkdir()
    for name in ("link.parquet", "dangling.parquet"):
        for how in ({}, {"resume": True}, {"replace": True}):
            assert "is a symbolic link; name the file" in outputs.refused(name, **how)
    assert "is a folder; OUTPUT is a file" in outputs.refused("folder.parquet", replace=True)
    assert "/dev/null is no regular file" in outputs.refused("/dev/null", replace=True, output_format="csv")
    assert "there is no folder" in outputs.refused("no/such/a.parquet")
    assert "cannot be read: File name too long" in outputs.refused("x" * 300 + ".parquet")
    for name in ("", "..", "sub/"):
        with pytest.raises(BatchFileError):
            outputs.open(name)
    (tmp_path / "b.parquet.parts").symlink_to(tmp_path)
    assert "its folder is a symbolic link" in outputs.refused("b.parquet")
    (tmp_path / "c.parquet.parts").write_text("a file")
    assert "c.parquet.parts" in outputs.refused("c.parquet")
    assert (tmp_path / "other").read_text() == "of somebody else"


def test_a_link_that_takes_the_place_of_the_unfinished_file_is_not_followed(outputs: Outputs, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("of somebody else")
    (tmp_path / ".a.parquet.tmp").symlink_to(tmp_path / "other")
    with outputs.open() as output:
        output.write(row(1, decided()))
        output.finish(1)
    assert (tmp_path / "other").read_text() == "of somebody else"
    assert outputs.column("row") == [1]


def test_files_of_others_among_the_parts_stay(outputs: Outputs) -> None:
    outputs.written(row(1, decided()))
    (outputs.parts() / "notes.txt").write_text("mine")
    with outputs.open(resume=True) as output:
        output.finish(1)
    assert [path.name for path in outputs.parts().iterdir()] == ["notes.txt"]


def test_only_the_user_reads_parts_and_the_umask_says_who_reads_the_output(outputs: Outputs) -> None:
    before = os.umask(0o027)
    try:
        with outputs.open() as output:
            output.write(row(1, decided()))
            output.flush()
            assert outputs.parts().stat().st_mode & 0o777 == 0o700
            assert {path.stat().st_mode & 0o777 for path in outputs.parts().iterdir()} == {0o600}
            output.finish(1)
    finally:
        os.umask(before)
    assert (outputs.folder / "a.parquet").stat().st_mode & 0o777 == 0o640


def test_a_part_that_breaks_under_way_is_named_and_the_output_stays_away(outputs: Outputs) -> None:
    with outputs.open() as output:
        output.write(row(1, decided()))
        output.flush()
        (outputs.parts() / "part-000001.parquet").write_bytes(b"PAR1 no more")
        with pytest.raises(OutputError, match=r"part-000001.parquet is broken"):
            output.finish(1)
    assert [path.name for path in outputs.folder.iterdir()] == ["a.parquet.parts"]


def test_every_part_has_the_whole_schema(outputs: Outputs) -> None:
    outputs.written(row(1))
    written = pq.read_schema(outputs.parts() / "part-000001.parquet")
    assert written.remove_metadata() == SCHEMA
