"""What benchmarks of updates share: Composer training steps, with scores measured after every tenth, by turns.

Batches are drawn at random in memory, training's and the probes' of the same shape: what they hold costs nothing and
changes nothing. One Trainer and one model serve all contenders, so that each turn's figures are of the same machine,
model and memory. A probe has as many rows as a training batch, and scores are cross-fitted: an update goes through
two of them, one for G and one for the sources' losses.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
import transformers
from composer import Callback, Trainer
from measure import Figures, Row, in_turns
from torch.utils.data import DataLoader, IterableDataset

from mixstream.callbacks.scores import PROVIDERS, ScoreProvider, provider_of
from mixstream.runs.model import CausalLM

PLAIN = "plain training"


@dataclass(frozen=True)
class Setting:
    """What is trained, and how often it is interrupted.

    Attributes:
        model: of the Llama.
        rows: of a training batch, and of a probe; a multiple of every number of sources.
        sequence: tokens of a row.
        microbatch: rows that go through the model at a time.
        sources: numbers of sources, K.
        interval: training batches to an update.
    """

    model: dict[str, int]
    rows: int
    sequence: int
    microbatch: int
    device: str
    precision: str
    sources: tuple[int, ...] = (6, 70)
    interval: int = 10


class RandomBatches(IterableDataset):  # type: ignore[type-arg]
    """Endless batches, drawn once and told in turn."""

    def __init__(self, setting: Setting) -> None:
        self._batches = [batch_of(setting, 1, seed) for seed in range(4)]

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        while True:
            yield from self._batches


def batch_of(setting: Setting, num_sources: int, seed: int) -> dict[str, torch.Tensor]:
    """Return a batch with the same number of rows of each source, in some order."""
    chance = np.random.default_rng(seed)
    tokens = chance.integers(0, setting.model["vocab_size"], (setting.rows, setting.sequence))
    stream = chance.permutation(np.repeat(np.arange(num_sources), setting.rows // num_sources))
    return {"input_ids": torch.from_numpy(tokens), "stream": torch.from_numpy(stream)}


@dataclass(eq=False)  # Composer keeps callbacks in sets
class Updates(Callback):
    """Measures scores by `provider`, if there is one, after the last batch of an interval; and takes the time."""

    num_batches: int = 0
    provider: ScoreProvider | None = None
    probes: list[dict[str, torch.Tensor]] = field(default_factory=list)
    seconds: float = 0.0
    _seen: int = 0
    _began: float = 0.0

    def batch_start(self, state, logger):
        if self._seen == 0:
            self._began = now()

    def batch_end(self, state, logger):
        self._seen += 1
        if self._seen < self.num_batches:
            return
        if self.provider is not None:
            scored, aggregate = self.probes
            num_sources = int(scored["stream"].max()) + 1
            scores = self.provider.measure(state, scored, aggregate, np.ones(num_sources))
            assert np.isfinite(scores.scores).all()
        self.seconds = (now() - self._began) / self._seen
        self._seen = 0


def now() -> float:
    """Return the time when all that was asked of the device is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def measured(setting: Setting, repeats: int) -> tuple[list[Row], dict[str, list[float]]]:
    """Return the rows of step times, and of each contender the peak of GPU memory in MB, if there is one."""
    updates = Updates()
    torch.manual_seed(1)
    config = transformers.LlamaConfig(use_cache=False, max_position_embeddings=setting.sequence, **setting.model)
    model = CausalLM(transformers.LlamaForCausalLM(config))
    trainer = Trainer(
        model=model,
        train_dataloader=DataLoader(RandomBatches(setting), batch_size=None),
        train_dataloader_label="random",
        optimizers=torch.optim.AdamW(model.parameters(), lr=1e-4),
        max_duration="1ba",
        device=setting.device,
        precision=setting.precision,
        device_train_microbatch_size=setting.microbatch,
        callbacks=[updates],
        progress_bar=False,
    )
    memory: dict[str, list[float]] = {}

    def contender(name: str, provider: ScoreProvider | None, num_sources: int):
        probes = [batch_of(setting, num_sources, seed) for seed in (11, 12)]

        def run(batches: int = setting.interval) -> float:
            updates.provider, updates.probes, updates.num_batches = provider, probes, batches
            if setting.device == "gpu":
                torch.cuda.reset_peak_memory_stats()
            trainer.fit(duration=f"{batches}ba")
            if setting.device == "gpu":
                memory.setdefault(name, []).append(torch.cuda.max_memory_allocated() / 1e6)
            return updates.seconds

        return run

    ways = {PLAIN: contender(PLAIN, None, 1)}
    for name in PROVIDERS:
        for num_sources in setting.sources:
            key = f"{name}, K = {num_sources}"
            ways[key] = contender(key, provider_of(name), num_sources)
    for warm in ways.values():  # the first update of fd checks its step, and then one in fifty
        warm(1)
    memory.clear()
    figures, notes = in_turns(ways, repeats)
    trainer.close()
    return rows_of(setting, figures, notes), memory


def rows_of(setting: Setting, figures: Figures, notes: list[str]) -> list[Row]:
    """Return a row for each number of sources, and one that compares them."""
    rows = []
    for num_sources in setting.sources:
        own = {name: figures[f"{name}, K = {num_sources}"] for name in PROVIDERS}
        what = f"a training step, an update every {setting.interval}, K = {num_sources}"
        row = Row(what, "seconds", {PLAIN: figures[PLAIN]} | own, reach="fd / plain 1.35", notes=notes)
        for name in PROVIDERS:
            row.ratio(f"{name} / plain", name, PLAIN)
        rows.append(row)
    few, many = setting.sources[0], setting.sources[-1]
    both = {name: figure for name, figure in figures.items() if name != PLAIN}
    row = Row(f"a training step with updates, K = {many} against K = {few}", "seconds", both, reach="fd 1.15")
    for name in PROVIDERS:
        row.ratio(f"{name}, K = {many} / K = {few}", f"{name}, K = {many}", f"{name}, K = {few}")
    rows.append(row)
    return rows
