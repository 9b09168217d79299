"""A trained model to go on with: a Hugging Face checkpoint, checked against the streams before anything is read."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Literal

import tokenizers
import torch
import transformers
from safetensors import SafetensorError
from transformers.utils.hub import cached_file

from mixstream.errors import RecipeError
from mixstream.formats import FileModel, read_json
from mixstream.mixture.plan import Plan
from mixstream.streams.fingerprints import fingerprint_of, plain
from mixstream.streams.manifest import TokenizerInfo

NOTE_NAME = "mixstream.json"
TOKENIZER_NAME = "tokenizer.json"
MODEL_KEY = "model.pretrained"
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_OFFERED = "give a folder with config.json and model.safetensors, such as OUT/model of a run that has ended"


class ModelNote(FileModel):
    """mixstream.json in a model's folder: whose tokens it has learnt."""

    format: Literal["mixstream.model"] = "mixstream.model"
    version: Literal[1] = 1
    tokenizer: TokenizerInfo


def check_pretrained(name: str, plan: Plan, tokenizer: TokenizerInfo, key: str = MODEL_KEY) -> None:
    """Refuse a checkpoint that cannot be trained on what a plan reads; its weights are not read yet.

    Args:
        name: a folder, or a name on the hub.
        plan: what is read.
        tokenizer: what made the plan's tokens.
        key: of the recipe, that names it.

    Raises:
        RecipeError: there is no such checkpoint, it is no causal language model, its vocabulary or its context is too
            small, or it has learnt the tokens of another tokenizer.
    """
    config = _config_of(name, key)
    text = config.get_text_config(decoder=True)
    vocab_size, context = text.vocab_size, getattr(text, "max_position_embeddings", None)
    if vocab_size < tokenizer.vocab_size:
        raise RecipeError(
            f"{key} {name!r} knows {vocab_size:,} tokens, but the streams' tokenizer {tokenizer.name!r} has "
            f"{tokenizer.vocab_size:,}; convert the corpora with the checkpoint's own tokenizer"
        )
    if context is not None and context < plan.sequence_length:
        raise RecipeError(
            f"{key} {name!r} has a context of {context:,} tokens, but samples are of "
            f"{plan.sequence_length:,}; give mixture.sequence_length, a divisor of {plan.stored_sequence_length:,}, or "
            f"convert the corpora with a shorter --sequence-length"
        )
    _check_tokenizer(name, tokenizer, key)


def load_pretrained(name: str, key: str = MODEL_KEY) -> Any:
    """Return the model of a checkpoint, in single precision.

    Raises:
        RecipeError: it has not all the weights that its config.json asks for, or they cannot be read.
    """
    try:
        loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
            name, trust_remote_code=False, torch_dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as problem:
        raise RecipeError(f"{key} {name!r}: cannot be loaded ({_first_line(problem)}); {_OFFERED}") from None
    model, told = loaded
    missing = sorted(told["missing_keys"])
    if missing:
        raise RecipeError(
            f"{key} {name!r}: {len(missing)} weights of the model are not in it ({', '.join(missing[:3])}), "
            f"they would begin at random; {_OFFERED}"
        )
    return model


def tokenizer_files(name: str) -> list[Path]:
    """Return the files of a checkpoint that tell of its tokenizer, where there are any."""
    names = (TOKENIZER_NAME, "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
    return [path for path in (_file_of(name, each) for each in (*names, "tokenizer.model")) if path is not None]


def _config_of(name: str, key: str) -> Any:
    is_path = Path(name).is_absolute() or name.startswith((".", "~")) or name.count("/") > 1
    if is_path and not Path(name).is_dir():
        raise RecipeError(f"{key} {name!r}: no such folder; {_OFFERED}, or a name on the Hugging Face hub")
    try:
        config = transformers.AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as problem:
        if "custom code" in str(problem):
            raise RecipeError(
                f"{key} {name!r} brings code of its own, which is never run; give a checkpoint of a family "
                f"that transformers itself has"
            ) from None
        where = "" if Path(name).is_dir() else "no such folder, and the hub does not give it: "
        raise RecipeError(f"{key} {name!r}: {where}{_first_line(problem)}; {_OFFERED}") from None
    if type(config) not in transformers.AutoModelForCausalLM._model_mapping:
        raise RecipeError(
            f"{key} {name!r} is a {config.model_type}, expected a causal language model (one that "
            f"transformers' AutoModelForCausalLM knows); {_OFFERED}"
        )
    if Path(name).is_dir() and not any((Path(name) / weights).exists() for weights in _WEIGHTS):
        raise RecipeError(f"{key} {name!r}: holds no weights ({', '.join(_WEIGHTS[::2])}); {_OFFERED}")
    return config


def _check_tokenizer(name: str, wanted: TokenizerInfo, key: str) -> None:
    """Refuse a model that has learnt other tokens than the streams'; warn where that cannot be told."""
    note, file = _file_of(name, NOTE_NAME), _file_of(name, TOKENIZER_NAME)
    if note is not None:
        learnt = read_json(note, ModelNote, "remove it to have tokenizer.json compared").tokenizer.fingerprint
    elif file is not None:
        learnt = _fingerprint(file, wanted.eod_token_id)
    else:
        warnings.warn(
            f"{key} {name!r} has neither {NOTE_NAME} nor {TOKENIZER_NAME}: whether it has learnt the tokens "
            f"of the streams' tokenizer {wanted.name!r} cannot be told",
            stacklevel=2,
        )
        return
    if learnt != wanted.fingerprint:
        raise RecipeError(
            f"{key} {name!r} has learnt the tokens of a tokenizer of fingerprint {learnt}, but the streams' "
            f"({wanted.name!r}) has {wanted.fingerprint}; convert the corpora with the checkpoint's {TOKENIZER_NAME} "
            f"and the same end of documents (--tokenizer, --eod-token)"
        )


def _fingerprint(path: Path, eod_token_id: int) -> str:
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as problem:  # noqa: BLE001  the library raises bare Exception
        raise RecipeError(f"{path}: cannot be read ({_first_line(problem)}); bring it back, or remove it") from None
    return fingerprint_of(plain(tokenizer), eod_token_id)


def _file_of(name: str, file: str) -> Path | None:
    """Return a file of a checkpoint, fetched from the hub if need be, or None where it has none."""
    if Path(name).is_dir():
        return Path(name) / file if (Path(name) / file).is_file() else None
    found = cached_file(
        name,
        file,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return Path(found) if found else None


def _first_line(problem: Exception) -> str:
    lines = str(problem).strip().splitlines()
    return lines[0].strip().rstrip(".") if lines else type(problem).__name__
