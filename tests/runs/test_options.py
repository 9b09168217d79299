"""Whole runs with what a recipe can ask of the loader: lanes, a shorter length, a schedule, compressed shards."""

from __future__ import annotations

import math
import shutil

import pytest
import torch
from conftest import compress
from documented import texts, write_documented
from tiny import RUN, XDOGE, save, single

from mixstream import Plan
from mixstream.callbacks.exposure import Exposure
from mixstream.errors import RecipeError, ShardError, StreamError
from mixstream.loader import MixtureLoader
from mixstream.runs.chain import run_recipe
from mixstream.runs.folder import Result
from mixstream.runs.recipe import load_recipe
from mixstream.streams.reader import MdsReader

SCHEDULE = [{"at": "8ba", "weights": "natural"}, {"at": "16ba", "ramp": "4ba", "weights": "uniform"}]


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Return a function that runs a recipe and tells its result and the batches that it was given."""

    def run(content) -> tuple[Result, list[dict[str, torch.Tensor]]]:
        batches = []
        monkeypatch.setattr(
            Exposure, "batch_start", lambda self, state, logger: batches.append(state.batch), raising=False
        )
        recipe = load_recipe(save(tmp_path / "recipe.yaml", content))
        return next(iter(run_recipe(recipe, lambda name, run: None).values())), batches

    return run


def test_a_run_at_a_shorter_length_is_measured_at_it(streams, tmp_path, train):
    mixture = RUN["mixture"] | {"sequence_length": 4, "schedule": SCHEDULE, "batch_size": 20}
    result, batches = train(single(streams, tmp_path / "run", mixture=mixture))
    assert {tuple(batch["input_ids"].shape) for batch in batches} == {(20, 4)}
    assert not any("labels" in batch for batch in batches)
    assert (result.batches, result.tokens) == (24, 24 * 80)
    checkpoint = torch.load(tmp_path / "run" / "checkpoints" / "ba24-rank0.pt", weights_only=False)
    assert (
        checkpoint["state"]["integrations"]["huggingface"]["model"]["config"]["content"]["max_position_embeddings"] == 4
    )
    one = result.heldout["eu.tales"]
    # conftest: 6 rows of 8 tokens, 7 of which are bytes.
    assert one.num_tokens == 6 * 8
    assert one.bits_per_byte == pytest.approx(one.nats_per_token * 8 / 7 / math.log(2))
    # By the model itself: 12 samples of 4 tokens, 3 of which are foretold.
    assert one.nats_per_token == pytest.approx(loss_of(streams, checkpoint), rel=1e-5)
    few = single(streams, tmp_path / "few", mixture=mixture, training=RUN["training"] | {"heldout_samples": 5})
    assert train(few)[0].heldout["eu.tales"].num_tokens == 5 * 4


def loss_of(streams, checkpoint) -> float:
    import transformers

    from mixstream.runs.model import CausalLM

    config = checkpoint["state"]["integrations"]["huggingface"]["model"]["config"]["content"]
    model = CausalLM(transformers.LlamaForCausalLM(transformers.LlamaConfig(**config)))
    model.load_state_dict(checkpoint["state"]["model"])
    rows = [row["tokens"] for row in MdsReader.open(streams / "eu.tales" / "heldout")]
    tokens = torch.stack([torch.from_numpy(row.astype("int64")) for row in rows]).reshape(-1, 4)
    logits = model.eval()({"input_ids": tokens})["logits"].log_softmax(-1)
    told = logits[:, :-1].gather(-1, tokens[:, 1:, None])
    return -float(told.mean())


def test_a_schedule_is_read_as_planned(streams, tmp_path, train):
    _, batches = train(single(streams, tmp_path / "run", mixture=RUN["mixture"] | {"schedule": SCHEDULE}))
    plan = Plan.load(tmp_path / "run" / "plan.json")
    assert len(plan.phases) > 2
    for ours, theirs in zip(batches, MixtureLoader(plan), strict=True):
        assert all(torch.equal(ours[key], theirs[key]) for key in ("stream", "sample", "repeat", "input_ids"))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_compressed_streams_and_held_out_splits_train_as_raw_ones(streams, tmp_path, train, num_workers):
    shutil.copytree(streams, tmp_path / "streams")
    compress(tmp_path / "streams")
    training = RUN["training"] | {"num_workers": num_workers}
    packed = single(tmp_path / "streams", tmp_path / "packed", training=training, method=XDOGE)
    with pytest.raises(StreamError, match="stream 'ca.tales': its shards are compressed .* give a cache_dir"):
        train(packed)
    assert not (tmp_path / "packed").exists()
    raw, expected = train(single(streams, tmp_path / "raw", training=training, method=XDOGE))
    training |= {"cache_dir": str(tmp_path / "cache"), "verify_hashes": True}
    result, found = train(packed | {"training": training})
    for ours, theirs in zip(found, expected, strict=True):
        assert all(torch.equal(ours[key], theirs[key]) for key in ("stream", "sample", "repeat", "input_ids"))
    assert result.heldout == raw.heldout
    learnt = [(tmp_path / name / "weights.jsonl").read_text() for name in ("raw", "packed")]
    assert learnt[0] == learnt[1]
    assert len(list((tmp_path / "cache").glob("[!.]*"))) == 10  # five streams and their held-out splits
    assert not list((tmp_path / "cache" / ".reserved").iterdir())


@pytest.mark.parametrize(("byte", "verify_hashes"), [(-1, False), (-2, True)], ids=["no token", "another token"])
def test_a_flipped_bit_in_a_held_out_shard_ends_the_run_with_its_name(streams, tmp_path, train, byte, verify_hashes):
    """A token that the tokenizer does not have is always refused, another one where hashes are compared."""
    shutil.copytree(streams, tmp_path / "streams")
    shard = tmp_path / "streams" / "eu.tales" / "heldout" / "shard.00000.mds"
    content = bytearray(shard.read_bytes())
    content[byte] ^= 1
    shard.write_bytes(content)
    training = RUN["training"] | {"verify_hashes": verify_hashes, "heldout_batches": 1}
    with pytest.raises(ShardError, match="heldout/shard.00000.mds"):
        train(single(tmp_path / "streams", tmp_path / "run", training=training))


def test_streams_with_padding_are_refused_by_recipes(streams, tmp_path, train):
    """Its model would learn to write the padding."""
    root = shutil.copytree(streams, tmp_path / "streams")
    write_documented(root / "eu.padded", texts(60), layout="documents")
    with pytest.raises(RecipeError, match=r"samples of eu.padded are a document and its padding each, and a recipe's"):
        train(single(root, tmp_path / "run"))
    assert not (tmp_path / "run").exists()
