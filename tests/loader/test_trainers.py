"""What MixtureLoader does so that others' trainers leave it as it is, and what the Trainer of Hugging Face is refused."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from reading import global_batches, plan_of, told
from torch.utils.data import DataLoader, DistributedSampler

from mixstream.errors import MixtureError, StateError
from mixstream.loader import MixtureLoader
from mixstream.loader.hugging_face import LoaderPosition, MixtureTrainer, newest_checkpoint


class Model(torch.nn.Module):
    """Takes what a language model takes, and nothing else."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Embedding(257, 8), torch.nn.Linear(8, 257))

    def forward(self, input_ids, labels):
        logits = self.layers(input_ids[:, :-1])
        return {"loss": torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())}


def arguments(folder, **options):
    options = {"per_device_train_batch_size": 12, "max_steps": 30, "save_steps": 10, **options}
    return transformers.TrainingArguments(
        str(folder), report_to="none", disable_tqdm=True, use_cpu=True, logging_strategy="no", **options
    )


@pytest.fixture
def alone():
    """torch.distributed of one process."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_a_loader_made_before_torch_distributed_is_refused(catalog, monkeypatch, request):
    """It would read rank 0's part, or all, on every rank."""
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    early, given = MixtureLoader(plan_of(catalog)), MixtureLoader(plan_of(catalog), rank=1, world_size=2)
    request.getfixturevalue("alone")
    with pytest.raises(
        MixtureError, match=r"made as rank 1 of 2, but .* rank 0 of 1; .* \(with Lightning in train_dataloader\(\)\)"
    ):
        next(iter(early))
    rows = global_batches(plan_of(catalog))[0]["sample"]
    assert next(iter(given))["sample"].tolist() == rows[6:].tolist()
    assert next(iter(MixtureLoader(plan_of(catalog))))["sample"].tolist() == rows.tolist()


def test_accelerate_gives_the_loader_back(catalog, tmp_path):
    """And saves where it is, loads it, and keeps it out of what is dealt to ranks."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    loader = MixtureLoader(plan_of(catalog))
    assert accelerator.prepare(loader) is loader
    batches = iter(loader)
    for _ in range(4):
        next(batches)
    accelerator.save_state(str(tmp_path / "saved"))
    next(batches)
    accelerator.load_state(str(tmp_path / "saved"))
    assert loader.ledger().batch == 4
    expected = [told(batch) for batch in global_batches(plan_of(catalog))]
    assert [told(batch) for batch in loader] == expected[4:]
    accelerator.free_memory()


def test_the_sampler_is_one_that_trainers_leave_alone(catalog):
    loader = MixtureLoader(plan_of(catalog))
    assert isinstance(loader.sampler, DistributedSampler)
    assert loader.sampler is loader.batch_sampler


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_steps": 31}, "takes 31 steps of 1 batches, but the plan has 30 .* set max_steps=30 or fewer"),
        (
            {"max_steps": -1},  # the Trainer's default is three epochs
            "takes 90 steps of 1 batches",
        ),
        (
            {"gradient_accumulation_steps": 4},
            "takes 30 steps of 4 batches, but the plan has 30 .* set max_steps=7 or fewer",
        ),
        (
            {"per_device_train_batch_size": 8},
            "per_device_train_batch_size=8 on 1 processes makes 8 rows a batch, but the plan has batch_size=12",
        ),
    ],
)
def test_a_trainer_that_counts_otherwise_is_refused(catalog, tmp_path, options, message):
    trainer = MixtureTrainer(Model(), arguments(tmp_path, **options), loader=MixtureLoader(plan_of(catalog)))
    with pytest.raises(MixtureError, match=message):
        trainer.train()


def test_a_trainer_of_ones_own_is_told_what_it_lacks(catalog, tmp_path):
    class Own(transformers.Trainer):
        def get_train_dataloader(self):
            return self.mine

    trainer = Own(Model(), arguments(tmp_path), callbacks=[LoaderPosition])
    trainer.mine = MixtureLoader(plan_of(catalog))
    with pytest.raises(MixtureError, match="ignore_data_skip=False: .* set TrainingArguments"):
        trainer.train()
    trainer.mine = DataLoader([{"input_ids": torch.zeros(8, dtype=torch.int64)}] * 60)
    with pytest.raises(MixtureError, match="trains on a DataLoader; let get_train_dataloader"):
        trainer.train()


@pytest.fixture
def trained(catalog, tmp_path):
    """Return a Trainer's folder with checkpoints of steps 10, 20 and 30."""
    MixtureTrainer(Model(), arguments(tmp_path), loader=MixtureLoader(plan_of(catalog))).train()
    return tmp_path


def test_a_checkpoint_of_other_counts_is_refused(catalog, trained, edit_json):
    def resume(**options):
        trainer = MixtureTrainer(Model(), arguments(trained, **options), loader=MixtureLoader(plan_of(catalog)))
        trainer.train(resume_from_checkpoint=str(trained / "checkpoint-10"))

    with pytest.raises(StateError, match=r"loader is at batch 10, its Trainer at 10 steps of 2 batches, 20; go on"):
        resume(max_steps=15, gradient_accumulation_steps=2)
    edit_json(trained / "checkpoint-10" / "trainer_state.json", lambda state: state["stateful_callbacks"].clear())
    with pytest.raises(StateError, match=r"checkpoint of step 10 has no position of a loader: it was saved without"):
        resume()


def test_a_finished_trainer_takes_no_more_steps(catalog, trained):
    """Nor where the plan has more batches than it takes, where Hugging Face's own takes one more."""
    loader = MixtureLoader(plan_of(catalog))
    trainer = MixtureTrainer(Model(), arguments(trained, max_steps=20), loader=loader)
    trainer.train(resume_from_checkpoint=str(trained / "checkpoint-20"))
    assert trainer.state.global_step == loader.ledger().batch == 20


def test_the_position_survives_where_callbacks_are_restored(catalog, trained):
    loader = MixtureLoader(plan_of(catalog))
    options = {"restore_callback_states_from_checkpoint": True}
    trainer = MixtureTrainer(Model(), arguments(trained, **options), loader=loader)
    trainer.train(resume_from_checkpoint=str(trained / "checkpoint-20"))
    assert loader.ledger().batch == 30
    saved = json.loads((trained / "checkpoint-30" / "trainer_state.json").read_text())
    assert json.loads(saved["stateful_callbacks"]["LoaderPosition"]["attributes"]["position"])["batch"] == 30


def test_the_newest_checkpoint_is_one_that_is_whole(trained):
    assert newest_checkpoint(trained) == str(trained / "checkpoint-30")
    whole = (trained / "checkpoint-30" / "trainer_state.json").read_text()
    (trained / "checkpoint-30" / "trainer_state.json").write_text(whole[:-40])  # killed while it was written
    assert newest_checkpoint(trained) == str(trained / "checkpoint-20")
    (trained / "checkpoint-30" / "trainer_state.json").write_bytes(b"\xf0\x28" * 9)  # nor is what a crash left a text
    assert newest_checkpoint(trained) == str(trained / "checkpoint-20")
    (trained / "checkpoint-20" / "trainer_state.json").unlink()
    (trained / "checkpoint-best").mkdir()
    (trained / "checkpoint-999").mkdir()
    assert newest_checkpoint(trained) == str(trained / "checkpoint-10")
    assert newest_checkpoint(trained / "nowhere") is None
