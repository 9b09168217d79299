"""Corpora are declared by corpora.yaml or by options; what would make another stream than was meant is refused."""

from __future__ import annotations

import json
import re

import pytest

from converters.config import CorpusConfig, FieldsConfig, corpora_of_config, corpora_of_paths, read_config
from mixstream.cli import app, main
from mixstream.errors import CorpusError, FormatError


def write(path, count=30):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": f"{n} kaixo", "language": "eu"}) + "\n" for n in range(count)))
    return path


def declare(path, text):
    path.write_text(text)
    return read_config(path)


def test_the_folder_of_a_dump_is_no_language(tmp_path):
    """Wikipedia's `20231101.eu` looks like LANGUAGE.DOMAIN, and would make a stream of the language 20231101."""
    write(tmp_path / "20231101.eu" / "part.jsonl")
    with pytest.raises(
        CorpusError, match="makes a stream named '20231101.eu' of the language '20231101', expected LANG"
    ):
        corpora_of_paths([str(tmp_path)], FieldsConfig(), None)
    with pytest.raises(CorpusError, match=r"--name 2023\.eu: makes a stream named '2023.eu' of the language '2023'"):
        corpora_of_paths([str(tmp_path)], FieldsConfig(), "2023.eu")
    with pytest.raises(CorpusError, match="--name eu: makes a stream named 'eu', expected LANGUAGE.DOMAIN"):
        corpora_of_paths([str(tmp_path)], FieldsConfig(), "eu")
    (corpus,), _ = corpora_of_paths([str(tmp_path)], FieldsConfig(), "eu.wiki")
    assert corpus.stream == "eu.wiki"


def test_two_corpora_do_not_make_one_stream(tmp_path):
    a, b = write(tmp_path / "a.jsonl"), write(tmp_path / "b.jsonl")
    config = declare(
        tmp_path / "corpora.yaml",
        f"corpora:\n  eu.wiki: {{sources: {a}}}\n  other: {{sources: {b}, language: eu, domain: wiki}}\n",
    )
    with pytest.raises(CorpusError, match=r"corpora eu.wiki and other: both make the stream 'eu.wiki'; list all its"):
        corpora_of_config(config)


def test_files_that_a_declaration_finds_but_does_not_read_are_told(tmp_path, capsys):
    write(tmp_path / "wiki" / "part.jsonl")
    (tmp_path / "wiki" / "README.md").write_text("a card")
    config = tmp_path / "corpora.yaml"
    declare(config, f"options: {{sequence_length: 8}}\ncorpora:\n  eu.wiki: {{sources: {tmp_path / 'wiki'}}}\n")
    app(["convert", "--config", str(config), "--out", str(tmp_path / "out")], standalone_mode=False)
    told = " ".join(capsys.readouterr().out.split())
    assert f"ignored {tmp_path / 'wiki' / 'README.md'}: no corpus format" in told
    assert f"30 documents in 1 stream in {tmp_path / 'out'}" in told


def test_a_subsample_is_told_by_its_name(tmp_path, capsys):
    path = write(tmp_path / "eu.wiki.jsonl")
    out = tmp_path / "out"
    arguments = ["convert", str(path), "--out", str(out), "--sequence-length", "8", "--subsample", "0.5"]
    app(arguments, standalone_mode=False)
    assert " outside the subsample" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("corpora: {}", "corpora: "),
        ("corpora: {eu: {sources: x.jsonl}}", "corpora eu: makes a stream named 'eu', expected LANGUAGE.DOMAIN"),
        ("corpora: {2023.eu: {sources: x.jsonl}}", "of the language '2023'"),
        ("corpora: {a: {sources: x, language: eu}}", "a stream is LANGUAGE.DOMAIN; give both"),
        ("corpora: {a: {sources: x, language: eu, language_field: l, domain: d}}", "both given; keep one of them"),
        ("corpora: {a.b: {sources: x, field: content}}", "unknown key 'corpora.a.b.field'; did you mean"),
        ("corpora: {a.b: {sources: x, keep: [tokens]}}", "keep: 'tokens' is a column of every stream"),
        ("options: {holdout: 1.5}\ncorpora: {a.b: {sources: x}}", "options.holdout: .*0.99"),
        ("version: 2\ncorpora: {a.b: {sources: x}}", "version: "),
    ],
)
def test_declarations_that_cannot_be_meant_are_refused(tmp_path, text, message):
    with pytest.raises((FormatError, CorpusError), match=message):
        corpora_of_config(declare(tmp_path / "corpora.yaml", text))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.jsonl", "--config", "c.yaml", "--holdout", "0.1"], "files, --holdout: given beside --config; say it in"),
        ([], "no corpus; give files, folders, globs or URLs, or --config corpora.yaml"),
        (
            ["a.jsonl", "--name", "a/b", "--language", "eu", "--domain", "a"],
            "--name a/b: expected a name of letters, digits, dots",
        ),
        (["corpora.yaml"], "corpora.yaml: holds no text; if it declares corpora, give it as --config corpora.yaml"),
        (["a.jsonl", "--document", "files"], "document: .*'line' or 'file'"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.jsonl")
    with pytest.raises(SystemExit) as left:
        main(["convert", *arguments, "--out", "out"])
    assert left.value.code == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_a_corpus_that_names_streams_by_fields_needs_no_name():
    assert CorpusConfig(sources="x", language_field="language", domain="web").names_streams
    assert not CorpusConfig(sources="x").names_streams
