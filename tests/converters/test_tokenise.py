"""Tokenizers as workers have them: whole, in one thread, and deaf to special tokens that a text spells out."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors, trainers
from tokenizers import decoders as tokenizer_decoders

from converters.tokens.tokenise import BATCH_CHARACTERS, ByteTokenizer, batches, dtype_of, load_tokenizer, spec_of
from mixstream.errors import TokenizerError
from mixstream.streams.manifest import TokenizerInfo

TEXTS = ["kaixo mundua, zer moduz zaude gaur", "bat <|endoftext|> bi<|pad|>", "", "\n \t 😀 hiru"]


@pytest.fixture
def tokenizer_json(tmp_path):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizer_decoders.ByteLevel()
    tokenizer.train_from_iterator(
        [TEXTS[0]] * 20,
        trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=["<|endoftext|>", "<|pad|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    path = tmp_path / "bpe" / "tokenizer.json"
    path.parent.mkdir()
    tokenizer.save(str(path))
    return path


def changed(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return str(path)


def test_special_tokens_in_a_text_are_text(tokenizer_json):
    ours = load_tokenizer(str(tokenizer_json))
    tokens = ours.encode(TEXTS)
    assert ours.info.eod_token_id == 0
    assert ours.pad_token_id == 1
    assert not any(np.isin([0, 1], part).any() for part in tokens)
    assert [ours.decode(part) for part in tokens] == TEXTS
    assert ours.decode(np.concatenate([tokens[0], [0], tokens[3], [0]])) == f"{TEXTS[0]}\n{TEXTS[3]}\n"


def test_an_end_of_document_token_that_is_not_special_is_found_in_a_text(tokenizer_json):
    tokenizer = Tokenizer.from_file(str(tokenizer_json))
    tokenizer.add_tokens([AddedToken("<eot>", special=False)])
    tokenizer.save(str(tokenizer_json))
    ours = load_tokenizer(str(tokenizer_json), "<eot>")
    assert ours.info.eod_token_id in ours.encode(["bat <eot> bi"])[0]  # so that the caller can refuse the document


def test_the_fingerprint_is_of_all_that_decides_tokens(tokenizer_json):
    ours = load_tokenizer(str(tokenizer_json))
    plain = tokenizer_json.read_text()
    tokenizer = Tokenizer.from_str(plain)
    tokenizer.enable_padding(length=8)
    tokenizer.enable_truncation(4)
    tokenizer.post_processor = processors.TemplateProcessing("<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)])
    tokenizer.save(str(tokenizer_json))
    assert load_tokenizer(str(tokenizer_json)).info == ours.info
    assert load_tokenizer(str(tokenizer_json)).encode(TEXTS)[0].tolist() == ours.encode(TEXTS)[0].tolist()
    tokenizer_json.write_text(plain)
    merges = json.loads(plain)["model"]["merges"]
    model = json.loads(plain)["model"] | {"merges": merges[:-1]}
    other = load_tokenizer(changed(tokenizer_json, model=model))
    assert other.info.fingerprint != ours.info.fingerprint


def test_a_tokenizer_goes_to_where_its_file_is_not(tokenizer_json):
    spec = spec_of(str(tokenizer_json), "<|endoftext|>")
    ours = load_tokenizer(str(tokenizer_json), "<|endoftext|>")
    sent = pickle.dumps(spec)
    tokenizer_json.unlink()
    there = pickle.loads(sent).load()
    assert there.info == ours.info
    assert [part.tolist() for part in there.encode(TEXTS)] == [part.tolist() for part in ours.encode(TEXTS)]
    assert pickle.loads(sent).load() is there
    assert pickle.loads(pickle.dumps(spec_of("byte"))).load().info == ByteTokenizer.info


WORKER = """
import pickle, sys, threading
from pathlib import Path
from converters.tokens.tokenise import use_one_thread
if sys.argv[2] == "one":
    use_one_thread()
tokenizer = pickle.loads(Path(sys.argv[1]).read_bytes()).load()
tokenizer.encode([f"kaixo mundua {number}" for number in range(5000)])
print(len(list(Path("/proc/self/task").iterdir())))
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="threads are counted in /proc")  # noqa: PTH110
def test_a_worker_encodes_in_one_thread(tokenizer_json, tmp_path):
    (tmp_path / "spec").write_bytes(pickle.dumps(spec_of(str(tokenizer_json))))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "RAYON_NUM_THREADS": "3"}
    environment.pop("TOKENIZERS_PARALLELISM", None)
    threads = {}
    for how in ("one", "many"):
        command = [sys.executable, "-c", WORKER, str(tmp_path / "spec"), how]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
        threads[how] = int(done.stdout)
    assert threads["one"] == 1
    assert threads["many"] > 1  # so that the count can tell


LONG = """
import resource, sys
from pathlib import Path
from converters.tokens.tokenise import load_tokenizer, use_one_thread
use_one_thread()
tokenizer = load_tokenizer(sys.argv[1])
text = ("kaixo mundua, zer moduz zaude gaur? " * 30_000)[: int(sys.argv[2])]
print(len(tokenizer.encode([text])[0]), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_a_long_document_takes_no_more_memory_than_a_piece(tokenizer_json):
    peaks = []
    for characters in (2 * BATCH_CHARACTERS, 4 * BATCH_CHARACTERS):
        command = [sys.executable, "-c", LONG, str(tokenizer_json), str(characters)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        peaks.append(int(done.stdout.split()[1]))
    assert peaks[1] - peaks[0] < 30  # megabytes; whole, half a million characters more take over 60


@given(texts=st.lists(st.text(max_size=9)), most=st.integers(1, 20))
def test_batches_keep_order_and_hold_so_much(texts, most):
    parts = list(batches(texts, most))
    assert [text for part in parts for text in part] == texts
    assert all(part and (len(part) == 1 or sum(map(len, part)) <= most) for part in parts)


@given(texts=st.lists(st.text()))
def test_bytes_are_bytes(texts):
    tokens = ByteTokenizer().encode(texts)
    assert [part.tobytes() for part in tokens] == [text.encode() for text in texts]
    assert [ByteTokenizer().decode(part) for part in tokens] == texts


def test_tokenizers_that_cannot_be_used_are_told_why(tokenizer_json):
    whole = tokenizer_json.read_text()
    with pytest.raises(TokenizerError, match="has none of <eot>; name its end-of-document token with --eod-token"):
        load_tokenizer(str(tokenizer_json), "<eot>")
    model = json.loads(whole)["model"]
    with pytest.raises(TokenizerError, match=r"drops merges at random \(dropout 0.1\).*set model.dropout to null"):
        load_tokenizer(changed(tokenizer_json, model=model | {"dropout": 0.1}))
    for broken in ("", "{}", whole[: len(whole) // 2], "kaixo"):
        tokenizer_json.write_text(broken)
        with pytest.raises(TokenizerError, match=r"tokenizer.json': not a tokenizer of the tokenizers library \(.+\)"):
            spec_of(str(tokenizer_json))
    tokenizer = Tokenizer.from_str(whole)
    tokenizer.add_special_tokens(["</s>"])
    tokenizer.save(str(tokenizer_json))
    with pytest.raises(TokenizerError, match=r"has <\|endoftext\|>, </s>; name its end-of-document token"):
        load_tokenizer(str(tokenizer_json))
    words = Tokenizer(models.WordLevel({"kaixo": 0}))
    words.save(str(tokenizer_json))
    with pytest.raises(TokenizerError, match="has none of"):
        load_tokenizer(str(tokenizer_json))


@pytest.mark.parametrize(
    ("size", "dtype"), [(257, "uint16"), (1 << 16, "uint16"), (65537, "uint32"), (1 << 32, "uint32")]
)
def test_tokens_fit_their_type(size, dtype):
    assert dtype_of(TokenizerInfo(name="x", fingerprint="x", vocab_size=size, eod_token_id=0)) == dtype


def test_a_vocabulary_beyond_32_bits_is_refused():
    info = TokenizerInfo(name="x", fingerprint="x", vocab_size=(1 << 32) + 1, eod_token_id=0)
    with pytest.raises(TokenizerError, match="has token 4,294,967,296, expected at most 4,294,967,295"):
        dtype_of(info)
