"""docs/converting.md is true: its commands run, in the order of the page, on small files of the layouts that it names.

A block of ``sh`` is commands of ours; comments end them. What is in ``streams`` and the like is removed between sections.
"""

from __future__ import annotations

import gzip
import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
import pytest
from conftest import REPOSITORY
from typer.main import get_command

from converters.config import CorpusConfig, OptionsConfig
from mixstream.cli import app
from mixstream.streams.documents import read_documents_table
from mixstream.streams.manifest import read_manifest
from mixstream.streams.reader import MdsReader

PAGE = (REPOSITORY / "docs" / "converting.md").read_text()
SMALLER = {"--vocab-size 64000": "--vocab-size 270"}  # the layouts have too little text for the first
OUTPUTS = ("streams", "target", "proxy", "staging")
COUNT = 240


class Block(NamedTuple):
    section: str
    kind: str
    text: str


def blocks():
    found = []
    for section in PAGE.split("\n## "):
        title = section.partition("\n")[0]
        found += [
            Block(title, *block) for block in re.findall(r"^```(\w*)\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
        ]
    return found


def commands(text):
    """Return the commands of a block as lists of words."""
    for short, small in SMALLER.items():
        text = text.replace(short, small)
    return [shlex.split(line, comments=True) for line in text.replace("\\\n", " ").splitlines() if line.strip()]


def texts(language, count=COUNT):
    return [f"{language} {n}: " + f"hitz {n % 7} eta esaldi {n} " * 60 for n in range(count)]


def compressed(path, lines, codec):
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.CompressedOutputStream(str(path), codec) as file:
        file.write("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())


def parquet(path, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pa.table(columns), path, row_group_size=50)


def write_wikipedia(root):
    for language, num_files in (("eu", 1), ("ca", 2)):
        for number in range(num_files):
            some = texts(language)[number::num_files]
            parquet(
                root / "wikipedia" / f"20231101.{language}" / f"train-{number:05}-of-{num_files:05}.parquet",
                id=[str(100 + n * num_files + number) for n in range(len(some))],
                url=[f"https://{language}.wikipedia.org/wiki/{n}" for n in range(len(some))],
                title=[f"{n}" for n in range(len(some))],
                text=some,
            )


def write_oscar(root):
    for language, names in (("eu", ["eu_meta_part_1", "eu_meta_part_2"]), ("gl", ["gl_meta"])):
        for part, name in enumerate(names):
            lines = [
                {
                    "content": text,
                    "warc_headers": {"warc-record-id": f"<urn:uuid:{language}-{part}-{n}>", "warc-type": "conversion"},
                    "metadata": {
                        "identification": {"label": language, "prob": 0.7 + n / 1000},
                        "harmful_pp": n * 1.5 if n % 3 else None,
                        "quality_warnings": None if n % 2 else ["short_sentences"],
                        "sentence_identifications": [{"label": language, "prob": 0.9}, None],
                    },
                }
                for n, text in enumerate(texts(f"{language}{part}"))
            ]
            compressed(root / "oscar" / f"{language}_meta" / f"{name}.jsonl.zst", lines, "zstd")
        (root / "oscar" / f"{language}_meta" / "checksum.sha256").write_text("...\n")


def write_fineweb(root):
    for code, script in (("eus", "Latn"), ("cat", "Latn"), ("ell", "Grek"), ("eus", "Latn_removed")):
        for split, count in (("train", COUNT), ("test", 9)):
            some = texts(code, count)
            parquet(
                root / "fineweb-2" / "data" / f"{code}_{script}" / split / "000_00000.parquet",
                text=some,
                id=[f"<urn:uuid:{code}-{split}-{n}>" for n in range(count)],
                dump=["CC-MAIN-2024-10"] * count,
                url=["https://example.org"] * count,
                date=["2024-02-20T00:00:00Z"] * count,
                file_path=["s3://commoncrawl/..."] * count,
                language=[code] * count,
                language_score=[0.9 + n / 10_000 for n in range(count)],
                language_script=[script[:4]] * count,
                minhash_cluster_size=[1 + n % 9 for n in range(count)],
                top_langs=["{}"] * count,
            )


def write_wet(root):
    records = []
    for number, text in enumerate(["software: none", *texts("eu"), *texts("ca")]):
        language = (None, "eus,eng", "cat")[number and 1 + (number > COUNT)]
        headers = {
            "WARC-Type": "conversion" if number else "warcinfo",
            "WARC-Target-URI": f"https://example.org/{number}",
            "WARC-Date": "2024-05-18T01:58:10Z",
            "WARC-Record-ID": f"<urn:uuid:{number}>",
            "Content-Length": len(text.encode()),
        }
        if language and number % 100:
            headers["WARC-Identified-Content-Language"] = language
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        records.append(gzip.compress(f"WARC/1.0\r\n{head}\r\n{text}\r\n\r\n".encode()))
    (root / "wet").mkdir()
    (root / "wet" / "CC-MAIN-20240517233122-20240518023122-00000.warc.wet.gz").write_bytes(b"".join(records))


def write_others(root):
    some = texts("eu")
    parquet(
        root / "CulturaX" / "eu" / "eu_part_00000.parquet", text=some, timestamp=[None] * COUNT, source=["mC4"] * COUNT
    )
    hplt = [
        {"text": text, "id": f"h{n}", "lang": ["eus_Latn", "glg_Latn"], "prob": [0.9, 0.1]}
        for n, text in enumerate(some)
    ]
    compressed(root / "hplt" / "eus_Latn" / "1.jsonl.zst", hplt, "zstd")
    c4 = [{"text": text, "timestamp": "2020-01-01T00:00:00Z", "url": "https://example.org"} for text in some]
    compressed(root / "c4" / "multilingual" / "c4-eu.tfrecord-00000-of-00064.json.gz", c4, "gzip")
    compressed(root / "corpora" / "eu.wiki.jsonl.zst", [{"text": text} for text in some], "zstd")
    for number in range(20):
        book = root / "books" / f"liburua {number}.txt"
        book.parent.mkdir(exist_ok=True)
        book.write_text("\n\n".join(texts(f"{number}", 9)))
    saved = root / "saved" / "train"  # as datasets 5.2 writes it
    saved.mkdir(parents=True)
    table = pa.table({"text": some})
    with (
        pa.OSFile(str(saved / "data-00000-of-00001.arrow"), "wb") as file,
        pa.ipc.new_stream(file, table.schema) as writer,
    ):
        writer.write_table(table)
    (saved / "dataset_info.json").write_text("{}")
    state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_fingerprint": "f", "_split": "train"}
    (saved / "state.json").write_text(json.dumps(state))


@pytest.fixture(scope="module")
def layouts(tmp_path_factory):
    root = tmp_path_factory.mktemp("layouts")
    for write in (write_wikipedia, write_oscar, write_fineweb, write_wet, write_others):
        write(root)
    return root


@pytest.fixture
def here(layouts, monkeypatch):
    """The folder of the layouts, without what a test before made there."""
    monkeypatch.chdir(layouts)
    _clean(layouts)
    return layouts


def _clean(root):
    for name in OUTPUTS:
        shutil.rmtree(root / name, ignore_errors=True)


def run(command, capsys):
    """Run a command of ours in this process; return what it printed."""
    assert command[0] == "mixstream", command
    app(command[1:], standalone_mode=False)
    return " ".join(capsys.readouterr().out.split())


def sections(start):
    return [block for block in blocks() if block.kind == "sh" and block.section.startswith(start)]


def documents(root, name):
    """Return the manifest of a stream, and its documents' table, held-out ones included."""
    place = root / "streams" / name
    tables = [read_documents_table(split) for split in (place, place / "heldout") if split.exists()]
    return read_manifest(place), pa.concat_tables(tables)


def test_every_block_is_of_a_kind_that_is_checked():
    assert all(short in PAGE for short in SMALLER)
    assert {block.kind for block in blocks()} == {"sh", "yaml", "python", ""}
    assert len([block for block in blocks() if block.kind == "sh"]) >= 10


def test_every_command_and_option_it_names_exists():
    known = get_command(app).commands
    for block in blocks():
        for words in commands(block.text) if block.kind == "sh" else []:
            command = known.get(words[1]) if words[0] == "mixstream" else None
            if words[:2] == ["mixstream", "tokenizer"]:
                command = known["tokenizer"].commands[words[2]]
            assert command is not None or words[0] == "dask"
            options = {option for parameter in command.params for option in parameter.opts} if command else set(words)
            assert {word for word in words if word.startswith("--")} <= options, words
    options = {option for parameter in known["convert"].params for option in parameter.opts}
    options |= {option for parameter in known["view"].params for option in parameter.opts}
    options |= {option for parameter in known["tokenizer"].commands["train"].params for option in parameter.opts}
    prose = re.sub(r"^```.*?^```$", "", PAGE, flags=re.DOTALL | re.MULTILINE)
    assert set(re.findall(r"`(--[\w-]+)", prose)) <= options


def test_its_tables_have_every_key_with_its_default():
    told = {}
    for keys, default, meaning in re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| (.*?) \| (.*?) \|$", PAGE, re.MULTILINE):
        assert meaning
        told |= {key: default.strip("`") for key in re.findall(r"\w+", keys)}
    known = {**CorpusConfig.model_fields, **OptionsConfig.model_fields}
    assert told.keys() == known.keys()
    for key, field in known.items():
        default = "none" if field.default in (None, ()) else str(field.default).lower()
        assert told[key] == ("needed" if field.is_required() else default), key


def test_the_first_commands_and_the_declaration_of_all_corpora(here, capsys):
    first = [block for block in blocks() if block.section.startswith("# Corpora")]
    for command in commands(first[0].text):
        told = run(command, capsys)
    assert "eu.wiki/heldout 1" in told and "none" in told
    _clean(here)
    (declared,) = [block for block in blocks() if block.kind == "yaml"]
    assert declared.text.startswith("# corpora.yaml\n")
    Path("corpora.yaml").write_text(declared.text)
    (block,) = sections("corpora.yaml")
    said = [run(command, capsys) for command in commands(block.text)]
    assert "270 tokens in tokenizer.json" in said[0] and "premium" in said[1]
    assert "in 4 streams in streams" in said[2]
    assert {path.name for path in Path("streams").iterdir()} == {"eu.wiki", "eu.fineweb", "eu.oscar", "gl.oscar"}
    manifest, table = documents(here, "eu.fineweb")
    assert manifest.columns == ("language_score", "minhash_cluster_size")
    assert sorted(set(table["minhash_cluster_size"].to_pylist())) == list(range(1, 10))
    assert manifest.tokenizer.vocab_size == 270


def test_a_view_for_a_proxy_run(here, capsys):
    (block,) = sections("Which document")
    told = [run(command, capsys) for command in commands(block.text)]
    assert "outside the subsample" in told[1]
    for name in ("eus.fineweb", "cat.fineweb"):
        whole, view = (read_documents_table(Path(out) / name)["id"].to_pylist() for out in ("target", "proxy"))
        assert set(view) < set(whole)
        same = [read_documents_table(Path(out) / name / "heldout").to_pylist() for out in ("target", "proxy")]
        assert same[0] == same[1]
    assert not Path("target/ell.fineweb").exists()


def test_views_of_streams_are_what_the_conversion_makes(here, capsys):
    (converting,), (cutting,) = sections("Which document"), sections("Views of streams")
    for command in commands(converting.text):
        run(command, capsys)
    shutil.move("proxy", "streams")
    shutil.rmtree("target")
    told = [run(command, capsys) for command in commands(cutting.text)]
    assert "views of share 0.0625 by seed 17 of 2 streams in proxy" in told[1] and told[1].count("written") == 2
    assert "views of share 0.0625 by seed 17 of 2 streams" in told[2] and told[2].count("kept") == 2
    for name in ("eus.fineweb", "cat.fineweb"):
        asked, found = Path("streams") / name, Path("proxy") / name
        cut = read_manifest(found).view.cut_documents
        ids = [read_documents_table(place)["id"].to_pylist() for place in (asked, found)]
        assert ids[0][: len(ids[0]) - cut] == ids[1]
        samples = [len(MdsReader.open(place)) for place in (asked, found)]
        for one, other in zip(
            *([tuple(row["tokens"]) for row in MdsReader.open(own)] for own in (asked, found)), strict=False
        ):
            assert one == other
        assert samples[1] <= samples[0] <= samples[1] + cut * 3
        same = ["documents.parquet", "index.json", *(path.name for path in asked.glob("*.mds"))]
        assert cut or all((asked / file).read_bytes() == (found / file).read_bytes() for file in same)


@pytest.mark.parametrize(
    ("section", "streams"),
    [
        ("How to: Wikipedia", {"eu.wiki": COUNT, "ca.wiki": COUNT}),
        ("How to: OSCAR", {"eu.oscar": 2 * COUNT, "gl.oscar": COUNT}),
        ("How to: FineWeb-2", {"eu.fineweb": COUNT, "eus.fineweb": COUNT, "cat.fineweb": COUNT}),
        ("How to: Common Crawl", {"eus.web": COUNT - 2, "cat.web": COUNT - 2}),
        (
            "How to: others",
            {"eu.culturax": COUNT, "eu.hplt": COUNT, "eu.mc4": COUNT, "eu.news": COUNT, "eu.books": 20},
        ),
    ],
)
def test_how_to(here, capsys, section, streams):
    """The streams are those that it speaks of, with all their documents, under their own ids."""
    (block,) = sections(section)
    for command in commands(block.text):
        run(command, capsys)
    assert {path.name for path in Path("streams").iterdir() if path.is_dir()} == streams.keys()
    assert {name: len(documents(here, name)[1]) for name in streams} == streams
    ids = {name: documents(here, name)[1]["id"].to_pylist() for name in streams}
    if section.endswith("Wikipedia"):
        assert set(ids["eu.wiki"]) == {str(100 + n) for n in range(COUNT)}
    elif section.endswith("OSCAR"):
        assert all(own.startswith("<urn:uuid:eu-") for own in ids["eu.oscar"])
        _, table = documents(here, "eu.oscar")
        assert table["metadata.harmful_pp"].null_count == 2 * COUNT / 3
        assert table["metadata.identification.prob"].null_count == 0
    elif section.endswith("Crawl"):
        rejects = Path("streams/all.web.rejects.jsonl").read_text().splitlines()
        assert len(rejects) == 4
        assert all(own.startswith("<urn:uuid:") for own in ids["eus.web"])


def test_to_and_from_an_object_store(here, capsys, bucket):
    (block,) = sections("To and from")
    bucket.put("corpora/eu.wiki.jsonl.zst", Path("corpora/eu.wiki.jsonl.zst").read_bytes())
    for command in commands(block.text.replace("s3://my-bucket", bucket.url)):
        told = run(command, capsys)
    assert "eu.wiki" in told
    assert "streams/eu.wiki/index.json" in set(bucket.keys())
    assert list(Path("staging").iterdir()) == []


def test_a_dask_cluster_started_by_its_commands_makes_the_same_bytes(here, capsys, tmp_path):
    (block,) = sections("Workers")
    scheduler, worker, convert = commands(block.text)
    assert scheduler[:2] == ["dask", "scheduler"] and worker[:2] == ["dask", "worker"] and "--port" in scheduler
    scheduler[scheduler.index("--port") + 1] = "0"
    note = tmp_path / "scheduler.json"
    dask = [str(Path(sys.executable).parent / "dask")]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    started = [subprocess.Popen([*dask, *scheduler[1:], "--scheduler-file", str(note), "--no-dashboard"], **quiet)]
    try:
        address = _address(note, started[0])
        worker[2] = address
        started.append(subprocess.Popen([*dask, *worker[1:], "--no-dashboard"], **quiet))
        convert[convert.index("--cluster") + 1] = address
        command = [sys.executable, "-m", "mixstream.cli", *convert[1:]]  # in-process it could wait for ever
        subprocess.run(command, check=True, timeout=60, **quiet)
    finally:
        for process in reversed(started):
            process.terminate()
        for process in reversed(started):
            process.wait(20)
    Path("streams").rename("target")
    run([*convert[: convert.index("--cluster")]], capsys)
    files = {path.relative_to("streams") for path in Path("streams").rglob("*") if path.is_file()}
    assert files == {path.relative_to("target") for path in Path("target").rglob("*") if path.is_file()}
    for file in files:
        assert (Path("streams") / file).read_bytes() == (Path("target") / file).read_bytes(), file


def _address(note, process):
    """Return the address that a scheduler noted."""
    for _ in range(300):
        if note.exists() and note.read_text().strip():
            return json.loads(note.read_text())["address"]
        assert process.poll() is None, "the scheduler ended"
        time.sleep(0.1)
    raise AssertionError("the scheduler noted no address")


def test_the_script_for_slurm_is_python_and_calls_what_there_is():
    (block,) = [block for block in blocks() if block.kind == "python"]
    compile(block.text, "docs/converting.md", "exec")
    (words,) = re.findall(r"convert = \[(.*?)\]", block.text)
    known = {option for parameter in get_command(app).commands["convert"].params for option in parameter.opts}
    assert set(re.findall(r'"(--\w+)"', block.text)) == {"--config", "--out", "--cluster"} <= known
    assert words.startswith('"mixstream", "convert"')
