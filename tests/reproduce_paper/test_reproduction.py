"""The page of all results: made of what stands in the folder, and of nothing else; the command that runs all."""

import json
import types

import pytest

from reproduce_paper import __main__ as command
from reproduce_paper import report, reproduction

from .pages import mentions

ENVIRONMENT = {"tensorflow": "2.21.0", "machine": "x86_64, 2 CPU cores, 0 GPUs"}


def module(name, fails=None):
    made = types.ModuleType(name, f"What {name} is.\n\nMore.")

    def run(args):
        if fails:
            raise fails
        experiment = report.Experiment(name, args)
        experiment.result["value"] = 12.5
        return experiment.write(made.markdown(experiment.result))

    made.run = run
    made.add_arguments = lambda parser: None
    made.markdown = lambda result: f"# {name}\n\n## Part\n\n![{name}]({name}.png) {result['value']} %"
    made.in_short = lambda result: [f"it is {result['value']} %"]
    made.beside = lambda result: [report.Beside("Table 9", name, "10 %", f"{result['value']} %", "digits")]
    return made


@pytest.fixture
def experiments(monkeypatch):
    found = {name: module(name) for name in ("first", "second")}
    monkeypatch.setattr(report, "environment", lambda: ENVIRONMENT)
    monkeypatch.setattr(command, "gc", types.SimpleNamespace(collect=lambda: 0))  # takes a second beside TensorFlow
    monkeypatch.setattr(command, "EXPERIMENTS", found)
    return found


def arguments(tmp_path, *more):
    return ["all", "--data-dir", str(tmp_path), "--out", str(tmp_path / "out"), "--seed", "3", *more]


def test_all_runs_each_and_makes_the_page(tmp_path, experiments, capsys):
    assert command.main(arguments(tmp_path)) == 0
    result = json.loads((tmp_path / "out" / "first.json").read_text())
    assert result["command"] == "python -m reproduce_paper first --data-dir DIR --out DIR --seed 3"
    assert result["seed"] == 3 and result["seconds"] >= 0 and not result["quick"]
    text = (tmp_path / "out" / "REPRODUCTION.md").read_text()
    assert mentions(text, "| Table 9 | second | 10 % ", "| 12.5 % | digits ")
    assert mentions(text, "- `second`", "12.5 %") and "\n### Part\n" in text and "](first.png) 12.5 %" in text
    assert mentions(text, result["command"], "seed 3", ENVIRONMENT["tensorflow"])
    assert text.index("## first") < text.index("## second") and "QUICK" not in capsys.readouterr().out


def test_the_page_says_what_was_not_run_and_takes_numbers_from_the_files(tmp_path, experiments):
    assert command.main(arguments(tmp_path)[:0] + ["first", *arguments(tmp_path)[1:]]) == 0
    path = tmp_path / "out" / "first.json"
    path.write_text(path.read_text().replace("12.5", "77.5"))
    assert command.main(["page", "--out", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / "REPRODUCTION.md").read_text()
    assert "77.5 %" in text and "12.5" not in text
    row = next(line for line in text.splitlines() if "`second`" in line)
    assert "What second is." in row and "not run" in row


def test_one_that_fails_stops_no_other_and_is_named(tmp_path, experiments, capsys):
    experiments["first"] = module("first", fails=FileNotFoundError("no such data"))
    experiments["middle"] = module("middle", fails=RuntimeError("broken"))
    assert command.main(arguments(tmp_path)) == 1
    error = capsys.readouterr().err
    assert "failed: first, middle" in error and "no such data" in error and "broken" in error
    assert (tmp_path / "out" / "second.json").is_file() and not (tmp_path / "out" / "first.json").exists()


@pytest.mark.medium
def test_resume_leaves_out_what_is_done_with_this_seed(tmp_path, experiments, capsys):
    assert command.main(arguments(tmp_path)) == 0
    experiments["first"] = module("first", fails=RuntimeError("run again"))
    assert command.main(arguments(tmp_path, "--resume")) == 0
    assert "first: done before" in capsys.readouterr().out
    assert command.main([*arguments(tmp_path, "--resume"), "--seed", "4"]) == 1


def test_quick_results_stand_apart(tmp_path, experiments):
    assert command.main(arguments(tmp_path, "--quick")) == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [
        "REPRODUCTION-quick.md", "first-quick.json", "first-quick.md", "second-quick.json", "second-quick.md",
    ]  # fmt: skip
    assert report.QUICK in (tmp_path / "out" / "first-quick.md").read_text()


def test_the_committed_page_is_made_of_the_committed_results():
    page = report.RESULTS / reproduction.PAGE
    assert page.read_text() == reproduction.page(command.EXPERIMENTS, report.RESULTS)
    for name in command.EXPERIMENTS:
        result = reproduction.read(name, report.RESULTS)
        assert result is not None and not result["quick"], name
        for picture in result.get("pictures", []):
            assert (report.RESULTS / picture).is_file(), picture
            assert f"({picture})" in page.read_text(), picture
