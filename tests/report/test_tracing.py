"""`mixstream trace`: what it tells of a batch and of a document, here and at a URL, and what it refuses."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
from conftest import REPOSITORY

from mixstream import Catalog, Plan, build_plan
from mixstream.cli import main
from mixstream.cli.texts import find_decoder
from mixstream.errors import MixtureError, StateError, StreamError
from mixstream.loader import MixtureLoader
from mixstream.loader.trace import History
from mixstream.report.tracing import show_batch, show_document, show_sample
from mixstream.streams.documents import documents_of_sample, read_documents_table

NAMES = ("eu.tales", "gl.tales", "ca.tales")


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """Three streams of bytes, with their documents."""
    root = tmp_path_factory.mktemp("converted")
    corpora = [str(REPOSITORY / "recipes" / "quickstart" / f"{name}.jsonl") for name in NAMES]
    with pytest.raises(SystemExit) as stop:
        main(["convert", *corpora, "--out", str(root / "streams"), "--sequence-length", "64", "--holdout", "0.15"])
    assert not stop.value.code
    return root / "streams"


@pytest.fixture
def plan(converted, tmp_path) -> Plan:
    made = build_plan(Catalog.open(converted), "uniform", 30 * 6 * 64, 6, seed=3)
    made.save(tmp_path / "plan.json")
    return made


@pytest.fixture
def history(plan, tmp_path) -> History:
    return History.open(tmp_path / "plan.json")


@pytest.fixture
def call(capsys, monkeypatch):
    """Return a function that runs a command: (exit code, what it printed, what it complained of)."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    return run


def test_a_batch_is_told_with_documents_and_texts(plan, history, converted, call, tmp_path):
    batches, decode = list(MixtureLoader(plan)), find_decoder(history.legs[0].streams[0].tokenizer)
    code, out, _ = call("trace", tmp_path / "plan.json", "--batch", 17, "--json")
    told = json.loads(out)
    assert code == 0
    assert (told["batch"], told["leg"], told["trained"], told["missing"]) == (17, 0, None, {})
    for row, tokens, sample in zip(told["rows"], batches[17]["input_ids"], batches[17]["sample"].tolist(), strict=True):
        parts = documents_of_sample(read_documents_table(converted / row["stream"]), sample, 64)
        assert [(one["id"], one["start"], one["stop"], one["offset"]) for one in row["documents"]] == [
            (one.id, one.start, one.stop, one.offset) for one in parts
        ]
        assert row["sample"] == sample
        assert row["text"] == decode(tokens.numpy())
    code, out, _ = call("trace", tmp_path / "plan.json", "--batch", 17)
    assert code == 0
    first = told["rows"][0]
    for word in (first["documents"][0]["id"], first["shard"], f"row 0, {first['stream']}: "):
        assert word in out
    _, whole, _ = call("trace", tmp_path / "plan.json", "--batch", 17, "--text")
    assert all(row["text"] in whole for row in told["rows"])
    _, none, _ = call("trace", tmp_path / "plan.json", "--batch", 17, "--no-text")
    assert "row 0" not in none


@pytest.mark.parametrize("loss", ["NaN", "Infinity", "-Infinity"])
def test_a_loss_that_is_not_finite_is_told(plan, call, tmp_path, loss):
    """The batch at which a run diverges is the one that is looked into."""
    (tmp_path / "metrics.jsonl").write_text(f'{{"batch": 4, "metrics": {{"loss/train/total": {loss}}}}}\n')
    code, out, _ = call("trace", tmp_path / "plan.json", "--batch", 3)
    assert code == 0
    assert f"training loss by batch: 3: {float(loss):.4f} <--" in out
    code, out, _ = call("trace", tmp_path / "plan.json", "--batch", 3, "--json")
    assert json.loads(out)["losses"] == [{"batch": 3, "loss": None}]


def test_sql_tells_what_is_not_finite_as_null(plan, call, tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"batch": 4, "metrics": {"loss/train/total": NaN}}\n')
    _, out, _ = call("trace", tmp_path, "--json", "--sql", "SELECT value FROM metrics")
    assert out == '[{"value": null}]\n'


def test_sql_as_json_is_json_whatever_is_asked(plan, call, tmp_path):
    asked = "SELECT [1 / 0::double, 2] AS a, {'b': 'nan'::double} AS c, map {[1]: 'x'} AS d, date '2026-01-02' AS e"
    code, out, _ = call("trace", tmp_path, "--json", "--sql", asked)
    assert code == 0
    (row,) = json.loads(out, parse_constant=pytest.fail)
    assert (row["a"], row["c"], row["e"]) == ([None, 2.0], {"b": None}, "2026-01-02")


def test_sql_as_json_leaves_out_no_column(plan, call, tmp_path):
    """Two of one name, as a join of all columns has: one would stand for both."""
    asked = "SELECT a.*, b.* FROM streams a JOIN streams b USING (stream)"
    code, out, err = call("trace", tmp_path, "--json", "--sql", asked)
    assert (code, out) == (2, "")
    assert "--json: 18 columns, of which 2 are named 'stream'; give each a name of its own (AS)" in err
    assert call("trace", tmp_path, "--sql", asked)[0] == 0


@pytest.mark.parametrize("line", ['{"batch": 4, "metrics": 3}', '{"batch": 4}', '{"batch": null}', '{"batch": 1e999}'])
def test_a_damaged_line_of_metrics_is_named(plan, call, tmp_path, line):
    (tmp_path / "metrics.jsonl").write_text(line + "\n")
    code, _, err = call("trace", tmp_path / "plan.json", "--batch", 3)
    assert code == 2
    assert "metrics.jsonl, line 1: " in err
    assert len(err.splitlines()) == 1


def test_padding_alone_has_no_documents(tmp_path, call):
    """Of rows of a document and its padding, read as shorter samples, some have nothing of the document."""
    corpus = tmp_path / "eu.tales.jsonl"
    lengths = [3 + 5 * number % 60 for number in range(40)]
    lines = (json.dumps({"id": f"d{number}", "text": "x" * length}) for number, length in enumerate(lengths))
    corpus.write_text("\n".join(lines))
    code, _, _ = call("convert", corpus, "--out", tmp_path / "s", "--sequence-length", 64, "--layout", "documents")
    assert code == 0
    build_plan(Catalog.open(tmp_path / "s"), "uniform", 30 * 6 * 16, 6, sequence_length=16).save(tmp_path / "my.json")
    history = History.open(tmp_path / "my.json")
    rows = [row for batch in range(25) for row in show_batch(history, batch, find_decoder=find_decoder).rows]
    assert all(row.documents is not None and len(row.documents) <= 1 for row in rows)
    for row in rows:
        assert all(len(row.text) <= one.stop - one.start <= len(row.text) + 1 for one in row.documents)
        assert row.documents or not row.text
    assert any(not row.documents for row in rows)


def test_ranks_share_a_batch(history):
    whole = show_batch(history, 5).rows
    parts = [show_batch(history, 5, rank, 3).rows for rank in range(3)]
    assert [row for part in parts for row in part] == list(whole)
    with pytest.raises(MixtureError, match=r"rank=0: nobody noted of how many ranks; give the world size too"):
        show_batch(history, 5, 0)
    for rank, world_size in ((3, 3), (0, 4), (0, 0)):
        with pytest.raises(MixtureError, match=rf"rank={rank} of world_size={world_size}; expected .* batch of 6"):
            show_batch(history, 5, rank, world_size)
    with pytest.raises(MixtureError, match=r"world_size=3 without a rank"):
        show_batch(history, 5, None, 3)


def test_a_document_is_told_where_its_tokens_were_read(plan, history, converted, call, tmp_path):
    batches = list(MixtureLoader(plan))
    table = read_documents_table(converted / "eu.tales")
    ids = table.column("id").to_pylist()
    number = plan.streams.index("eu.tales")
    size = plan.entries[number].num_samples
    for document in (0, 3, len(ids) - 1):
        begin, tokens = (table.column(name)[document].as_py() for name in ("begin", "num_tokens"))
        own = {sample for sample in range(size) if sample * 64 < begin + tokens and begin < (sample + 1) * 64}
        expected = [
            (at, row, int(sample))
            for at, batch in enumerate(batches)
            for row, (stream, sample) in enumerate(zip(batch["stream"], batch["sample"], strict=True))
            if stream == number and int(sample) in own
        ]
        found = show_document(history, ids[document])
        assert [(one.batch, one.row, one.sample) for one in found.draws] == expected
        assert [set(place.samples) for place in found.places] == [own]
        assert show_document(history, ids[document], "eu.tales") == found
    code, out, _ = call("trace", tmp_path / "plan.json", "--document", ids[0])
    assert code == 0
    assert "eu.tales: document number 0" in out
    assert "by the whole plan" in out
    code, out, _ = call("trace", tmp_path / "plan.json", "--sample", 2, "--stream", "eu.tales", "--json")
    assert [draw["seen"] for draw in json.loads(out)["draws"]] == list(range(len(json.loads(out)["draws"])))
    assert json.loads(out)["draws"] == [one.model_dump() for one in show_sample(history, "eu.tales", 2).draws]


def test_streams_at_a_url_are_told_alike(plan, history, converted, bucket, tmp_path):
    url = bucket.upload(converted, "streams")
    away = History.open(tmp_path / "plan.json", streams=url)
    here, there = show_batch(history, 4, find_decoder=find_decoder), show_batch(away, 4, find_decoder=find_decoder)
    assert there == here
    assert all(row.text and row.documents for row in there.rows)
    document = here.rows[0].documents[0].id
    assert show_document(away, document).draws == show_document(history, document).draws


def test_what_nobody_wrote_down_is_said_and_the_rest_is_told(plan, converted, call, tmp_path):
    shutil.copytree(converted, tmp_path / "streams")
    (tmp_path / "streams" / "eu.tales" / "documents.parquet").unlink()
    told = json.loads(
        call("trace", tmp_path / "plan.json", "--batch", 3, "--streams", tmp_path / "streams", "--json")[1]
    )
    assert list(told["missing"]) == ["eu.tales"]
    assert "documents.parquet: there is none" in told["missing"]["eu.tales"]
    assert all((row["documents"] is None) == (row["stream"] == "eu.tales") and row["text"] for row in told["rows"])
    code, _, err = call("trace", tmp_path / "plan.json", "--document", "gl-tales-0x", "--streams", tmp_path / "streams")
    assert code == 2
    assert "none of the run's 3 streams has a document 'gl-tales-0x'; did you mean 'gl-tales-0" in err
    assert "(1 could not be looked through: " in err


def test_samples_shorter_than_rows_have_their_own_part(converted, tmp_path):
    plan = build_plan(Catalog.open(converted), "uniform", 20 * 6 * 16, 6, sequence_length=16)
    plan.save(tmp_path / "plan.json")
    history = History.open(tmp_path / "plan.json")
    batch = list(MixtureLoader(plan))[9]
    shown = show_batch(history, 9, find_decoder=find_decoder)
    decode = find_decoder(history.legs[0].streams[0].tokenizer)
    for row, tokens in zip(shown.rows, batch["input_ids"], strict=True):
        assert row.text == decode(tokens.numpy())
        assert row.part == row.sample % 4
        assert row.documents[0].start == 0
        assert row.documents[-1].stop <= 16
    document = shown.rows[0].documents[0].id
    assert (9, 0) in [(draw.batch, draw.row) for draw in show_document(history, document).draws]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--batch", 30], "plan.json: has no batch 30; its batches are 0 to 29, counted from 0"),
        (["--batch", 1, "--document", "x"], "--batch and --document was asked for; give one of --batch, --document"),
        ([], "nothing was asked for; give one of --batch"),
        (["--document", "eu-tales-0x", "--stream", "eu.tale"], "has no stream 'eu.tale'; did you mean 'eu.tales'?"),
        (["--document", "zzz", "--stream", "eu.tales"], "stream 'eu.tales' has no document 'zzz'"),
        (["--sample", 3], "--sample 3: of which stream? give --stream too"),
        (["--sample", 3, "--stream", "gl.tals"], "has no stream 'gl.tals'; did you mean 'gl.tales'?"),
        (["--sample", 10**9, "--stream", "gl.tales"], "there is no sample 1000000000"),
        (["--batch", 1, "--rank", 0], "rank=0: nobody noted of how many ranks"),
        (["--batch", 1, "--stream", "eu.tales"], "--stream says nothing to --batch; it goes with --document or --samp"),
        (["--document", "x", "--rank", 0], "--rank says nothing to --document; it goes with --batch, leave it out"),
        (["--document", "\udcff"], "none of the run's 3 streams has a document '\\udcff'"),
        (["--sql", "SELECT 1"], "plan.json: a file; name the folder of its run"),
    ],
)
def test_what_cannot_be_answered_is_one_line(plan, call, tmp_path, arguments, told):
    code, out, err = call("trace", tmp_path / "plan.json", *arguments)
    assert (code, out) == (2, "")
    assert told in err
    assert len(err.splitlines()) == 1


def test_a_run_that_ends_early_says_where(converted, tmp_path):
    """Weights that leave one stream alone spend its budget: the run ends before the plan's last batch."""
    catalog = Catalog.open(converted)
    plan = build_plan(catalog, "uniform", 30 * 6 * 64, 6, max_repeats=3)
    plan.save(tmp_path / "plan.json")
    loader = MixtureLoader(plan, weight_lag=0)
    weights = {name: float(name == "eu.tales") for name in plan.streams}
    line = {"update": 1, "batch": 1, "at_batch": 2, "weights": weights}
    line |= dict.fromkeys(("scores", "probe_losses", "eta"))
    (tmp_path / "weights.jsonl").write_text(json.dumps({"format": "mixstream.weights_update"} | line) + "\n")
    loader.set_weights(weights, 2)
    with pytest.warns(UserWarning, match="the run ends after"):
        last = len(list(loader)) - 1
    history = History.open(tmp_path / "plan.json")
    assert show_batch(history, last).rows
    with pytest.raises(StateError, match=rf"batch {last + 1}: the run ends with batch {last}, where the streams"):
        show_batch(history, last + 1)


def test_tracing_needs_no_torch(plan, tmp_path):
    code = (
        "import sys\nfrom mixstream.cli import app\n"
        f"app(['trace', {str(tmp_path / 'plan.json')!r}, '--batch', '3'], standalone_mode=False)\n"
        "assert not [m for m in ('torch', 'composer', 'streaming') if m in sys.modules]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60, cwd=REPOSITORY)


def test_a_stream_without_such_a_document_is_named(history):
    with pytest.raises(StreamError, match=r"stream 'eu.tales' has no document 'eu-tales-9'; did you mean 'eu-tales"):
        show_document(history, "eu-tales-9", "eu.tales")
