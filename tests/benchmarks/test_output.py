import dataclasses
import datetime
import json
import sys

from benchmarks.output import as_text, bullets, machine, make_table, number, write_json, write_page
from rich import box


def test_numbers():
    assert number(None, 2) == ""
    assert number(0.0, 1) == "0.0"
    assert number(0.4567, 1, factor=100, unit="%") == "45.7%"


def test_a_markdown_table_between_lines():
    table = make_table(("name", "ms"))
    table.add_row("a", "1.0")
    expected = ["title", "", "| name |  ms |", "|------|-----|", "| a    | 1.0 |", "", "- note", ""]
    assert as_text("title", "", table, "", *bullets(["note"])) == "\n".join(expected)


def test_long_lines_and_brackets_stay_as_they_are():
    note = "[1, 3] :smile: " + 40 * "0123456789"
    assert as_text(note) == f"{note}\n"


def test_text_columns_are_aligned_to_the_left():
    table = make_table(("a", "b", "c"), box.SIMPLE_HEAD, texts=(0, 2))
    assert [c.justify for c in table.columns] == ["left", "right", "left"]


def test_json_has_the_machine_and_all_fields(tmp_path):
    @dataclasses.dataclass
    class Result:
        name: str
        ms: float | None = None

    file = tmp_path / "results.json"
    write_json(file, {"cores": "2"}, [Result("a")])
    expected = {"machine": {"cores": "2"}, "results": [{"name": "a", "ms": None}]}
    assert json.loads(file.read_text()) == expected
    write_json(None, {}, [])


def test_a_page_says_how_it_was_made(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "orig_argv", ["python3", "-m", "benchmarks.peers", "--batch", "1"])
    write_page(tmp_path / "page.md", "| a |\n", {"cpu": "x", "cores": "2"})
    title, _, command, _, about, _, table = (tmp_path / "page.md").read_text().splitlines()
    assert (title, table) == ("# benchmarks.peers", "| a |")
    assert command == "    python -m benchmarks.peers --batch 1"
    assert about == f"{datetime.date.today()}; cpu x, cores 2"
    write_page(None, "", {})


def test_the_machine_has_versions():
    facts = machine()
    assert facts["torch"] != "missing"
    assert int(facts["cores"]) >= 1
