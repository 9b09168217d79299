"""Hugging Face's Trainer fed by a MixtureLoader: its position is saved and loaded with the Trainer's checkpoints.

Three things go wrong without a word when a loader is merely handed over, and are seen to here: the Trainer skips, at a
resume, as many batches as were trained (the loader has gone on by itself); it has accelerate deal the batches to ranks
once more; and it saves nothing of where the data are.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import transformers
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import ExportableState, TrainerControl, TrainerState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from mixstream.errors import MixtureError, StateError
from mixstream.loader.dataloader import MixtureLoader

ABOUT = ("stream", "sample", "repeat", "document_ids")  # columns that tell of rows, which no model takes


class MixtureTrainer(transformers.Trainer):
    """A Trainer that trains on a loader's batches, once through its plan, and resumes exactly.

    A batch of the loader is what all processes together take in one forward pass, so the plan's batch size is
    ``per_device_train_batch_size`` x processes; with gradient accumulation a step takes several batches.
    """

    def __init__(self, *args: Any, loader: MixtureLoader, **options: Any) -> None:
        """Make a Trainer as usual, of `args` and `options`, without ``train_dataset``, that trains on `loader`."""
        super().__init__(*args, **options)
        self.args.ignore_data_skip = True  # the loader goes on by itself
        self._loader = loader
        self.add_callback(LoaderPosition)  # type: ignore[no-untyped-call]

    def get_train_dataloader(self) -> MixtureLoader:
        """Return the loader as it is."""
        return self._loader

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **options: Any) -> Any:
        """Return the model's loss, of the columns that a model takes."""
        taken = {name: column for name, column in inputs.items() if name not in ABOUT}
        return super().compute_loss(model, taken, *args, **options)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, *args: Any, **options: Any) -> Any:
        """Return the batches of a step; none after the last, where a Trainer that is resumed would take one more."""
        is_over = self.state.global_step >= self.state.max_steps
        return super().get_batch_samples(epoch_iterator, 0 if is_over else num_batches, *args, **options)


class LoaderPosition(transformers.TrainerCallback, ExportableState):
    """Puts the position of the Trainer's MixtureLoader into trainer_state.json, and the loader there at a resume.

    For a Trainer of your own: add it, and let ``get_train_dataloader`` return the loader.
    """

    def __init__(self) -> None:
        self.loader: MixtureLoader | None = None

    def state(self) -> dict[str, dict[str, str]]:
        """Return the position, for a checkpoint: all that was handed out has been trained when one is written."""
        return {"args": {}, "attributes": {} if self.loader is None else {"position": self.loader.state_dict()}}

    def on_train_begin(
        self, args: transformers.TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Check that Trainer and plan fit, and put the loader where the checkpoint was.

        Raises:
            MixtureError: the Trainer counts other batches than the plan has.
            StateError: a checkpoint without a position, or with another than the Trainer's.
        """
        loader = kwargs["train_dataloader"]
        if not isinstance(loader, MixtureLoader):
            raise MixtureError(
                f"the Trainer trains on a {type(loader).__name__}; let get_train_dataloader() return a MixtureLoader"
            )
        _check_counts(loader, args, state.max_steps)
        self.loader = loader
        if not state.global_step:
            return
        callbacks: Any = state.stateful_callbacks  # {name: what `state` returned}, where it was read from a checkpoint
        saved = callbacks.get(type(self).__name__, {}).get("attributes", {})
        if "position" not in saved:
            raise StateError(
                f"the checkpoint of step {state.global_step} has no position of a loader: it was saved without "
                f"LoaderPosition, so what it has read is not known; begin anew, or go on from one that has it"
            )
        loader.load_state_dict(saved["position"])
        read, trained = loader.ledger().batch, state.global_step * args.gradient_accumulation_steps
        if read != trained:
            raise StateError(
                f"the checkpoint's loader is at batch {read}, its Trainer at {state.global_step} steps of "
                f"{args.gradient_accumulation_steps} batches, {trained}; go on with the gradient_accumulation_steps "
                f"it was saved with"
            )


def newest_checkpoint(output_dir: str | Path) -> str | None:
    """Return the newest whole checkpoint in a Trainer's folder; None if there is none.

    A Trainer killed while it saves leaves a folder without a readable trainer_state.json, which is written last, and
    a Trainer that resumes there begins at step 0 without a word.
    """
    steps = {
        int(folder.name.rpartition("-")[2]): folder
        for folder in Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*")
        if folder.name.rpartition("-")[2].isdecimal() and _is_whole(folder)
    }
    return str(steps[max(steps)]) if steps else None


def _is_whole(checkpoint: Path) -> bool:
    """Return whether a checkpoint's last file was written to its end."""
    try:
        json.loads((checkpoint / TRAINER_STATE_NAME).read_text())
    except (FileNotFoundError, ValueError):  # it is not JSON, or no text at all
        return False
    return True


def _check_counts(loader: MixtureLoader, args: transformers.TrainingArguments, max_steps: int) -> None:
    """Refuse a Trainer whose batches and steps are not the plan's.

    Raises:
        MixtureError: telling both numbers.
    """
    plan, accumulated = loader.plan, args.gradient_accumulation_steps
    if not args.ignore_data_skip:
        raise MixtureError(
            "ignore_data_skip=False: at a resume the Trainer would skip batches that the loader has left behind "
            "already; set TrainingArguments(ignore_data_skip=True)"
        )
    if args.train_batch_size * args.world_size != plan.batch_size:
        raise MixtureError(
            f"per_device_train_batch_size={args.per_device_train_batch_size} on {args.world_size} processes makes "
            f"{args.train_batch_size * args.world_size} rows a batch, but the plan has batch_size={plan.batch_size}; "
            f"build the plan with the former, or change per_device_train_batch_size"
        )
    if max_steps * accumulated > plan.num_batches:
        raise MixtureError(
            f"the Trainer takes {max_steps} steps of {accumulated} batches, but the plan has {plan.num_batches} "
            f"batches, read once; set max_steps={plan.num_batches // accumulated} or fewer, or build a plan with more "
            f"budget_tokens"
        )
