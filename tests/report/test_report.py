"""The page: one file, with every chart and table in it, of any run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from made_runs import add_running, add_updates, make_run

from mixstream.errors import FormatError
from mixstream.report.html import as_script, sections_of, write_report
from mixstream.report.read import read_run, read_runs
from mixstream.report.tables import heldout_table, pairs, settings_table


def specs_in(page):
    (content,) = re.findall(r'<script type="application/json" id="specs">(.*?)</script>', page, flags=re.DOTALL)
    return json.loads(content)


def test_the_report_is_one_file_with_every_chart_and_table_in_it(tmp_path):
    folders = [make_run(tmp_path / "proxy", learnt=True), make_run(tmp_path / "base", loss=1.5)]
    write_report(folders, tmp_path / "out" / "report.html")
    page = (tmp_path / "out" / "report.html").read_text()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.html"]
    figures = [figure for section in sections_of(read_runs(folders)) for figure in section.figures]
    assert re.findall(r'<figure id="([^"]+)">', page) == [figure.name for figure in figures]
    assert specs_in(page) == [panel for figure in figures for panel in figure.panels]
    assert page.count('<div class="chart" data-name="') == len(specs_in(page))
    assert page.count("<details><summary>as a table</summary>") == len(figures)
    for figure in figures:
        for row in figure.table.rows:
            cells = "".join(f"<td>{cell}</td>" for cell in row[1:])
            assert f'<tr><th scope="row">{row[0]}</th>{cells}</tr>' in page
    markup = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert re.findall(r'(?:src|href)="([^"#][^"]*)"', markup) == ["data:,"], "something is loaded from elsewhere"
    assert not re.findall(r"@import|url\(", markup)
    assert "uniform, then learnt online in 3 updates" in page


def test_names_cannot_end_the_script():
    assert as_script([{"name": "</script><!--"}]) == '[{"name":"\\u003c/script>\\u003c!--"}]'


def test_what_made_the_runs_is_told(tmp_path):
    """Recipe, plan and versions; what differs is marked."""
    runs = read_runs([make_run(tmp_path / "base"), make_run(tmp_path / "other")])
    (tmp_path / "other" / "recipe.yaml").write_text("seed: 18\nmixture: {weights: uniform}\nold_key: {inner: [1, 2]}\n")
    starts = [{"torch": "2.6", "python": "3.11"}, {"torch": "2.7", "python": "3.11"}]
    versions = {"format": "mixstream.versions", "version": 1, "starts": starts}
    (tmp_path / "other" / "versions.json").write_text(json.dumps(versions))
    runs = read_runs([tmp_path / "base", tmp_path / "other"])
    rows = {row["key"]: (row["cells"], row["differs"]) for row in settings_table(runs)}
    assert rows["recipe.seed"] == (["17", "18"], True)
    assert rows["recipe.mixture.weights"] == (["uniform", "uniform"], False)
    assert rows["recipe.model.hidden_size"] == (["16", ""], True)
    assert rows["recipe.old_key.inner"] == (["", "[1, 2]"], True)
    assert rows["plan.batch_size"] == (["10", "10"], False)
    assert rows["versions.torch"] == (["", "2.6, then 2.7"], True)
    assert rows["versions.python"] == (["", "3.11"], True)


def test_a_chain_stands_for_its_runs(tmp_path):
    (tmp_path / "chain").mkdir()
    for name in ("uniform", "base", "proxy"):
        make_run(tmp_path / "chain" / name, learnt=name == "proxy")
    other = make_run(tmp_path / "other")
    assert [run.name for run in read_runs([tmp_path / "chain", other])] == ["proxy", "base", "uniform", "other"]
    with pytest.raises(FormatError, match="a run is named twice"):
        read_runs([tmp_path / "chain", tmp_path / "chain" / "base"])


def test_runs_of_older_versions_are_read(tmp_path):
    """Names of metrics were others, whichever method learnt."""
    new = read_run(make_run(tmp_path / "new", learnt=True))
    old = read_run(make_run(tmp_path / "old", learnt=True, old=True))
    assert new.metrics.keys() == old.metrics.keys()
    assert {"mixture/read/eu.b", "mixture/proportion/ca.a", "xdoge/seconds"} <= old.metrics.keys()
    assert old.metrics["xdoge/seconds"].values.tolist() == [0.5]
    names = [[figure.name for figure in sections_of([run])[1].figures] for run in (new, old)]
    assert names[0] == [name.replace("-old", "-new") for name in names[1]]
    assert len(names[0]) == 8


def test_a_run_that_was_resumed_by_a_new_version_goes_on(tmp_path):
    folder = make_run(tmp_path / "base", old=True)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"batch": 21, "metrics": {"mixture/loss/ca.a": 1.5}}\n')
    assert read_run(folder).by_stream("mixture/loss")["ca.a"].batches.tolist() == [5, 10, 15, 20, 21]


def test_held_out_losses_are_compared_where_only_the_weights_differ(tmp_path):
    folders = [
        make_run(tmp_path / "proxy", learnt=True),
        make_run(tmp_path / "base", loss=1.5),
        make_run(tmp_path / "uniform", loss=1.75),
    ]
    runs = read_runs(folders)
    assert [(one.name, other.name) for one, other in pairs(runs)] == [("base", "uniform")]
    ca, eu, mean = heldout_table(runs)
    assert (ca["language"], eu["language"], mean["language"]) == ("ca", "eu", "mean of languages")
    assert (ca["tokens"], mean["tokens"]) == (80, 160)
    assert [cell["nats"] for cell in ca["cells"]] == [2.0, 1.5, 1.75]
    assert [cell["bits"] for cell in eu["cells"]] == [None] * 3
    assert [cell["nats"] for cell in mean["cells"]] == [2.5, 2.0, 2.25]
    assert [cell["bits"] for cell in mean["cells"]] == [None] * 3
    assert [row["differences"] for row in (ca, eu, mean)] == [[-0.25]] * 3


@pytest.mark.parametrize(
    ("key", "alike"),
    [
        *(("model.hidden_size", False), ("training.learning_rate", False), ("mixture.max_repeats", False)),
        *(("mixture.weights", True), ("training.num_workers", True), ("loggers.wandb.project", True)),
    ],
)
def test_runs_that_were_trained_otherwise_are_no_pair(tmp_path, key, alike):
    one, other = (read_run(make_run(tmp_path / name)) for name in ("a", "b"))
    assert len(pairs([one, other])) == 1
    assert len(pairs([one, replace(other, recipe={**other.recipe, key: 7})])) == alike
    entries = tuple(entry.model_copy(update={"fingerprint": "0" * 16}) for entry in other.plan.entries)
    assert not pairs([one, replace(other, plan=other.plan.model_copy(update={"entries": entries}))])


def test_runs_of_one_name_are_told_apart(tmp_path):
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
    folders = [make_run(tmp_path / "one" / "base"), make_run(tmp_path / "two" / "base"), make_run(tmp_path / "proxy")]
    runs = read_runs(folders)
    assert [run.name for run in runs] == ["one/base", "two/base", "proxy"]
    names = [figure.name for section in sections_of(runs) for figure in section.figures]
    assert len(set(names)) == len(names)
    with pytest.raises(FormatError, match="a run is named twice"):
        read_runs([folders[0], folders[0]])


def test_a_run_that_goes_on_can_be_looked_at(tmp_path):
    """Not ended, and its last lines half written."""
    folder = make_run(tmp_path / "base", ended=False)
    add_updates(folder)
    for name in ("metrics.jsonl", "weights.jsonl"):
        with (folder / name).open("a") as file:
            file.write('{"batch": 21, "metr')
    write_report([folder], tmp_path / "report.html")
    assert "not ended" in (tmp_path / "report.html").read_text()
    assert read_run(folder).batches == 20
    assert len(read_run(folder).updates) == 4


def test_a_run_that_has_not_begun_to_log_can_be_looked_at(tmp_path):
    folder = make_run(tmp_path / "base", ended=False)
    (folder / "metrics.jsonl").unlink()
    (folder / "recipe.yaml").unlink()
    (folder / "weights.jsonl").touch()
    write_report([folder], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "plan of base" in page
    assert specs_in(page) == []


def test_a_run_that_diverged_can_be_looked_at(tmp_path):
    folder = make_run(tmp_path / "base", ended=False)
    with (folder / "metrics.jsonl").open("a") as file:
        for batch, value in ((25, "NaN"), (30, "-Infinity")):
            losses = ", ".join(f'"{name}": {value}' for name in ("loss/train/total", "mixture/loss/eu.a"))
            losses += ', "mixture/read/eu.a": 1'
            file.write(f'{{"batch": {batch}, "metrics": {{{losses}}}}}\n')
    write_report([folder], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    training = [spec for spec in specs_in(page) if "training loss, nats/token" in json.dumps(spec)]
    rows = {row["name"]: row for spec in training for row in spec["data"]["values"]}
    assert rows["base"]["batch"][-2:] == [25 * 80, 30 * 80]
    assert rows["base"]["value"][-2:] == [None, None]
    assert rows["eu"]["value"][-2:] == [None, None]
    assert "<td>-inf</td>" in page


def test_names_are_escaped(tmp_path):
    folders = [make_run(tmp_path / "<b>bold"), make_run(tmp_path / "r$\\x$")]
    add_running(folders[0])
    write_report(folders, tmp_path / "report.html")
    assert "<b>bold" not in (tmp_path / "report.html").read_text()


def test_what_is_no_run_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FormatError, match="not a run's folder, it holds no plan.json; `mixstream train` makes one"):
        write_report([tmp_path / "empty"], tmp_path / "report.html")
    (tmp_path / "empty" / "recipe.yaml").write_text("seed: 1")
    with pytest.raises(
        FormatError, match=r"empty: not a run's folder, its run stopped before it had written plan.json"
    ):
        read_run(tmp_path / "empty")
    with pytest.raises(FormatError, match=r"report.py: not a run's folder, it is a file"):
        read_run(Path(__file__).with_name("test_report.py"))
    with pytest.raises(FormatError, match=r"nowhere: not a run's folder, there is no such folder"):
        read_runs([tmp_path / "nowhere"])
    folder = make_run(tmp_path / "base")
    for line, message in (
        (b"nonsense", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b'{"batch": "x", "metrics": {}}', r"batch: .*\(found 'x'\); remove the line"),
        (b'{"batch": 1, "metrics": []}', "metrics: Input should be an object"),
    ):
        (folder / "metrics.jsonl").write_bytes(line + b'\n{"batch": 1, "metrics": {}}\n')
        with pytest.raises(FormatError, match="metrics.jsonl, line 1: " + message):
            read_run(folder)
    (folder / "metrics.jsonl").unlink()
    (folder / "result.json").write_text('{"format": "mixs')
    with pytest.raises(FormatError, match="result.json: not JSON"):
        read_run(folder)
    (folder / "result.json").write_text('{"format": "mixstream.result", "version": 9}')
    with pytest.raises(
        FormatError, match=r"version: .*\(found 9\); .*remove it, and `mixstream train` ends the run again"
    ):
        read_run(folder)
    assert not (tmp_path / "report.html").exists()
    for out in (tmp_path / "report", tmp_path / "plan.json", Path(), Path("/")):
        with pytest.raises(FormatError, match=r"give a name such as (report|plan)\.html"):
            write_report([folder], out)
    (folder / "result.json").unlink()
    (tmp_path / "report.html").mkdir()
    with pytest.raises(FormatError, match="is there and is not a file"):
        write_report([folder], tmp_path / "report.html")
    (folder / "recipe.yaml").write_text("a: [")
    with pytest.raises(FormatError, match=r"recipe.yaml: not YAML \(.*\); bring the file back, or remove it"):
        read_run(folder)
    (folder / "recipe.yaml").unlink()
    (folder / "weights.jsonl").write_text('{"format": "mixstream.weights_update", "version": 9}\n')
    with pytest.raises(FormatError, match=r"weights.jsonl, line 1: .*version: .*\(found 9\).*bring the file back"):
        read_run(folder)
    (folder / "weights.jsonl").unlink()
    (folder / "versions.json").write_text("{}")
    with pytest.raises(FormatError, match=r"versions.json: key 'starts' is missing; remove it"):
        read_run(folder)


def test_the_report_loads_no_torch():
    heavy = ("torch", "composer", "streaming", "vl_convert", "jinja2", "pyarrow")
    code = f"import sys, mixstream.report.html; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_batches_of_a_run_that_has_ended_are_its_results(tmp_path):
    folder = make_run(tmp_path / "base")
    (folder / "metrics.jsonl").unlink()
    assert read_run(folder).batches == 20


def test_a_run_that_has_logged_nothing_says_so(tmp_path):
    folder = make_run(tmp_path / "base", ended=False)
    (folder / "metrics.jsonl").unlink()
    write_report([folder], tmp_path / "report.html")
    assert "Nothing is logged of it yet." in (tmp_path / "report.html").read_text()


def test_a_report_is_not_written_where_its_pictures_cannot_be(tmp_path):
    with pytest.raises(FormatError, match="images of format 'gif'; expected one of svg, png"):
        write_report([make_run(tmp_path / "base")], tmp_path / "report.html", tmp_path / "images", "gif")
    assert not (tmp_path / "report.html").exists()
