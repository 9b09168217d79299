"""Models that runs begin with and leave behind: Hugging Face checkpoints, checked, loaded, written whole."""

from __future__ import annotations

import json
import resource
import shutil
import warnings

import pytest
import tokenizers
import torch
import transformers
from composer.core import State
from composer.devices import DeviceCPU
from conftest import BYTE, write_stream
from tiny import RUN, save, single

from converters.tokens.tokenise import HuggingFaceTokenizer
from mixstream import Catalog, build_plan
from mixstream.callbacks.exposure import Exposure
from mixstream.errors import RecipeError, StateError
from mixstream.formats import dump_json
from mixstream.runs import saving
from mixstream.runs.chain import run_recipe
from mixstream.runs.model import CausalLM, build_model
from mixstream.runs.pretrained import NOTE_NAME, ModelNote, check_pretrained
from mixstream.runs.recipe import load_recipe
from mixstream.runs.saving import save_model
from mixstream.runs.sections import ModelRecipe

SMALL = {"vocab_size": 300, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
SMALL |= {"num_attention_heads": 2, "max_position_embeddings": 16}


def llama(**changes) -> transformers.LlamaForCausalLM:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL | changes))


def noted(folder, fingerprint=BYTE.fingerprint):
    (folder / NOTE_NAME).write_text(
        dump_json(ModelNote(tokenizer=BYTE.model_copy(update={"fingerprint": fingerprint})))
    )
    return folder


@pytest.fixture
def checkpoint(tmp_path):
    llama().save_pretrained(tmp_path / "checkpoint")
    return noted(tmp_path / "checkpoint")


@pytest.fixture
def plan(catalog):
    return build_plan(catalog, "uniform", 4000, 10)


def run(tmp_path, content):
    return run_recipe(load_recipe(save(tmp_path / "recipe.yaml", content)), lambda name, run: None)


def loss_of(model, streams) -> float:
    """Return the mean loss of the first training rows, by the model's own reckoning."""
    plan = build_plan(Catalog.open(streams), "uniform", 4000, 10)
    from mixstream.loader import MixtureLoader

    rows = next(iter(MixtureLoader(plan)))["input_ids"]
    with torch.no_grad():
        return float(model.eval()(input_ids=rows, labels=rows).loss)


def test_a_run_leaves_a_model_that_transformers_reads_and_another_run_goes_on_with(streams, tmp_path, monkeypatch):
    first = run(tmp_path, single(streams, tmp_path / "base"))["base"]
    folder = tmp_path / "base" / "model"
    assert {p.name for p in folder.iterdir()} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        NOTE_NAME,
    }
    assert not list((tmp_path / "base").glob(".*"))
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    state = torch.load(tmp_path / "base" / "checkpoints" / "ba24-rank0.pt", weights_only=False)["state"]["model"]
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, state[f"model.{name}"]), name
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
    losses = []
    monkeypatch.setattr(
        Exposure, "after_loss", lambda self, state, logger: losses.append(float(state.loss.detach().mean()))
    )
    training = RUN["training"] | {"learning_rate": 0.005}
    cpt = single(streams, tmp_path / "cpt", model={"pretrained": str(folder)}, training=training)
    second = run(tmp_path, cpt)["base"]
    assert losses[0] == pytest.approx(loss_of(model, streams), rel=0.3)
    assert losses[0] < 3 < 5 < torch.log(torch.tensor(257.0))  # not a fresh one's
    for name, loss in second.heldout.items():
        assert loss.nats_per_token < first.heldout[name].nats_per_token
    assert transformers.AutoConfig.from_pretrained(tmp_path / "cpt" / "model").hidden_size == 16
    # What was begun with is needed no more: the run has ended.
    shutil.rmtree(folder)
    with pytest.raises(RecipeError, match="no such folder; give a folder with config.json"):
        run(tmp_path, cpt)


@pytest.mark.parametrize("family", ["gpt2", "bloom", "mamba"])
def test_the_loss_by_row_is_that_of_any_causal_model(family, plan, tmp_path, catalog):
    """Learnt positions, none (and so no bound of the context), no attention at all."""
    sizes = {
        "gpt2": {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 8},
        "bloom": {"hidden_size": 16, "n_layer": 1, "n_head": 2},
        "mamba": {"hidden_size": 16, "num_hidden_layers": 1, "state_size": 4},
    }
    config = transformers.AutoConfig.for_model(family, vocab_size=257, **sizes[family])
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / family)
    noted(tmp_path / family)
    model = build_model(ModelRecipe(pretrained=str(tmp_path / family)), plan, seed=1).eval()
    rows = torch.randint(0, 257, (3, 8), generator=torch.Generator().manual_seed(1))
    batch = {"input_ids": rows, "stream": torch.zeros(3)}
    losses = model.loss(model.forward(batch), batch)
    assert losses.shape == (3,)
    each = [float(model.model(input_ids=row[None], labels=row[None]).loss) for row in rows]
    assert losses.tolist() == pytest.approx(each, rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 200}, r"knows 200 tokens, but the streams' tokenizer 'byte' has 257; convert the corpora"),
        ({"max_position_embeddings": 4}, r"a context of 4 tokens, but samples are of 8; give mixture.sequence_length"),
    ],
)
def test_a_checkpoint_that_is_too_small_is_refused_with_the_numbers(streams, tmp_path, changes, message):
    llama(**changes).save_pretrained(tmp_path / "checkpoint")
    noted(tmp_path / "checkpoint")
    with pytest.raises(RecipeError, match=message):
        run(tmp_path, single(streams, tmp_path / "run", model={"pretrained": str(tmp_path / "checkpoint")}))
    assert not (tmp_path / "run").exists()


def test_what_is_no_checkpoint_is_refused(plan, tmp_path, checkpoint, monkeypatch):
    def refused(name, message):
        with pytest.raises(RecipeError, match=message):
            build_model(ModelRecipe(pretrained=str(name)), plan, seed=1)

    refused(tmp_path / "nowhere", r"nowhere': no such folder; give a folder with config.json and model.safetensors")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    refused("nobody/nothing-here", "no such folder, and the hub does not give it: .*give a folder")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "empty': .*config.json")
    transformers.T5Config().save_pretrained(tmp_path / "t5")
    refused(tmp_path / "t5", "is a t5, expected a causal language model")
    (tmp_path / "own").mkdir()
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}
    (tmp_path / "own" / "config.json").write_text(json.dumps(own))
    (tmp_path / "own" / "own.py").write_text("raise SystemExit('code of a checkpoint was run')")
    refused(tmp_path / "own", "own' brings code of its own, which is never run")
    weights = checkpoint / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    refused(checkpoint, "checkpoint': cannot be loaded")
    weights.unlink()
    refused(checkpoint, r"holds no weights \(model.safetensors, pytorch_model.bin\)")
    llama().model.save_pretrained(checkpoint)  # without the head that foretells tokens
    refused(checkpoint, r"1 weights of the model are not in it \(lm_head.weight\), they would begin at random")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({}, "expected hidden_size, intermediate_size, num_layers, num_heads of a fresh model, or pretrained"),
        ({"hidden_size": 16}, "key 'intermediate_size' is missing"),
        (RUN["model"] | {"pretrained": "x"}, "pretrained has a size of its own, but hidden_size, .* is given"),
        ({"pretrained": "x", "tie_embeddings": True}, "pretrained has a size of its own, but tie_embeddings is given"),
        (RUN["model"] | {"num_kv_heads": 3}, r"num_heads 2 is no multiple of num_kv_heads \(3\)"),
    ],
)
def test_a_model_is_given_in_one_of_two_ways(streams, tmp_path, model, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(save(tmp_path / "recipe.yaml", single(streams, tmp_path / "run", model=model)))


def test_a_fresh_model_may_share_its_tables_and_its_keys(plan):
    sizes = RUN["model"] | {"num_heads": 4, "num_kv_heads": 2, "tie_embeddings": True}
    model = build_model(ModelRecipe(**sizes), plan, seed=1).model
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.model.layers[0].self_attn.k_proj.weight.shape == (8, 16)


def word_tokenizer(words):
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, "<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return tokenizer


def test_a_checkpoint_of_another_tokenizer_is_refused(tmp_path):
    words = ["<unk>", "</s>", "bat", "bi", "hiru"]
    path = tmp_path / "checkpoint" / "tokenizer.json"
    llama().save_pretrained(path.parent)
    tokenizer = word_tokenizer(words)
    tokenizer.enable_padding()  # what only concerns padding does not make it another one
    tokenizer.save(str(path))
    info = HuggingFaceTokenizer(word_tokenizer(words), "words", None).info
    other = HuggingFaceTokenizer(word_tokenizer([*words[:3], "lau", "bost"]), "others", None).info
    for name, made_by in (("same", info), ("other", other)):
        write_stream(tmp_path / name, "eu.tales", 2, 40, tokenizer=made_by)
    plans = {name: build_plan(Catalog.open(tmp_path / name), "uniform", 160, 4) for name in ("same", "other")}
    check_pretrained(str(path.parent), plans["same"], info)
    told = rf"has learnt the tokens of a tokenizer of fingerprint {info.fingerprint}, but .*'others'.* has "
    with pytest.raises(RecipeError, match=told + other.fingerprint):
        check_pretrained(str(path.parent), plans["other"], other)
    # Ours say it themselves, and what they say goes first.
    noted(path.parent, other.fingerprint)
    check_pretrained(str(path.parent), plans["other"], other)
    (path.parent / NOTE_NAME).unlink()
    path.write_text("{")
    with pytest.raises(RecipeError, match=r"tokenizer.json: cannot be read \("):
        check_pretrained(str(path.parent), plans["same"], info)
    path.unlink()
    with pytest.warns(UserWarning, match="has neither mixstream.json nor tokenizer.json: whether it has learnt"):
        check_pretrained(str(path.parent), plans["same"], info)


def test_the_tokenizer_goes_on_with_the_model(streams, tmp_path, checkpoint):
    """Its files, as they were, so that the folder is whole for whoever takes it."""
    word_tokenizer(["<unk>", "</s>"]).save(str(checkpoint / "tokenizer.json"))
    (checkpoint / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    run(tmp_path, single(streams, tmp_path / "run", model={"pretrained": str(checkpoint)}))
    left = tmp_path / "run" / "model"
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (left / name).read_bytes() == (checkpoint / name).read_bytes()
    assert len(transformers.AutoTokenizer.from_pretrained(left)) == 2


class PowerCut(BaseException):
    pass


@pytest.mark.filterwarnings("ignore:No batches were trained")
@pytest.mark.parametrize("step", ["_write", "_put_in_place"])
def test_a_run_that_is_killed_while_it_writes_its_model_leaves_no_half_of_one(streams, tmp_path, monkeypatch, step):
    def cut(*arguments):
        getattr(saving, f"{step}_whole")(*arguments) if step == "_write" else None
        raise PowerCut

    content = single(streams, tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(saving, f"{step}_whole", getattr(saving, step), raising=False)
        patch.setattr(saving, step, cut)
        with pytest.raises(PowerCut):
            run(tmp_path, content)
    assert not (tmp_path / "run" / "model").exists()
    assert (tmp_path / "run" / ".model.making" / "model.safetensors").exists()
    assert not (tmp_path / "run" / "result.json").exists()
    run(tmp_path, content)  # the same command only writes it
    assert transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model")
    assert not (tmp_path / "run" / ".model.making").exists()
    # An older run may have none: it has ended all the same.
    shutil.rmtree(tmp_path / "run" / "model")
    assert run(tmp_path, content)["base"].batches == 24
    assert not (tmp_path / "run" / "model").exists()


def test_a_model_replaces_the_one_before_and_tells_when_it_cannot_be_written(tmp_path):
    def written(model):
        state = State(model=CausalLM(model), rank_zero_seed=0, run_name="test", device=DeviceCPU())
        save_model(state, tmp_path / "model", BYTE)
        return transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")

    first, second = llama(), llama(num_hidden_layers=2, tie_word_embeddings=True)
    assert torch.equal(written(first).lm_head.weight, first.lm_head.weight)
    again = written(second)
    assert again.config.num_hidden_layers == 2
    assert again.lm_head.weight is again.model.embed_tokens.weight
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, limits[1]))  # bytes a file may have: as on a full disk
    try:
        with pytest.raises(StateError, match=r"model: the trained model cannot be written \(.*; make room"):
            written(first)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert transformers.AutoConfig.from_pretrained(tmp_path / "model").num_hidden_layers == 2  # the old one is there
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        written(first)
