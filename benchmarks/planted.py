"""Scores and weights on planted sources: is the score unbiased, and does XDoGE find who helps whom?

Isolates the statistics: a tiny bigram model, real gradients, no loader. The sources are Markov chains over one
alphabet, so that what each teaches of the others is known:

    helpers       one table, followed with probability 0.9 x (1.0, 0.9, 0.8, 0.7); else any token
    interferers   two tables that say another next token than the helpers' and each other's after every token
    noise         any token, always

(a) Bias. At fixed parameters many probe batches are drawn; the mean score of each way to measure is compared
with the truth, which is the mean over large independent pairs. Told in standard errors and, for the same batch,
over what theory says it is too much by: tr Cov(gradient of one sequence of i) / sequences of i.

(b) Outcome. XDoGE learns weights while the model is trained by them, beside uniform weights; with few sequences
of interferers and noise in a probe; and long after the tables are learnt. The model cannot tell the sources
apart, so what is best for the sum of all losses in the end is the even mixture, and the papers' form (every source
a target) goes back to it, noise included; with the first helper as the only target it does not.

    python benchmarks/planted.py [--draws 200] [--seeds 3] [--scores kbackward]
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  the field's name for it
from composer.core import State
from composer.devices import DeviceCPU
from composer.models import ComposerModel

from mixstream.callbacks.rows import row_losses
from mixstream.callbacks.scores import provider_of
from mixstream.methods.xdoge import update_weights

ALPHABET, LENGTH = 48, 32
HELPERS = (1.0, 0.9, 0.8, 0.7)
NAMES = (*(f"helper {share:.1f}" for share in HELPERS), "interferer a", "interferer b", "noise")
K = len(NAMES)
IS_HELPER = np.arange(K) < len(HELPERS)
IS_INTERFERER = np.array(["interferer" in name for name in NAMES])
NOISE = K - 1
FLOOR = 0.02
ALL = (1.0,) * K
FIRST_HELPER = (1.0,) + (0.0,) * (K - 1)
HEADER = " ".join(f"{name:>12}" for name in NAMES)
WAYS = ("same batch", "cross-fitted", "half split")


class Planted:
    """The sources of a seed."""

    def __init__(self, seed: int) -> None:
        """Draw the three tables: a permutation, and two that nowhere agree with it or each other."""
        random = np.random.default_rng(seed)
        first = random.permutation(ALPHABET)
        shifts = [0, *random.choice(np.arange(1, ALPHABET), 2, replace=False)]
        helping, *interfering = (np.eye(ALPHABET)[np.roll(first, shift)] for shift in shifts)
        even = np.full((ALPHABET, ALPHABET), 1 / ALPHABET)
        shares = [(share, helping) for share in HELPERS] + [(1.0, table) for table in interfering] + [(0.0, helping)]
        followed = [0.9 * share * table + (1 - 0.9 * share) * even for share, table in shares]
        self._sums = torch.tensor(np.stack(followed)).cumsum(-1)
        self._generator = torch.Generator().manual_seed(seed)

    def rows(self, stream: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return a batch with one new sequence of each of these source numbers, (rows,)."""
        tokens = [torch.randint(0, ALPHABET, stream.shape, generator=self._generator)]
        for _ in range(LENGTH - 1):
            chance = torch.rand(len(stream), 1, generator=self._generator, dtype=torch.float64)
            tokens.append((self._sums[stream, tokens[-1]] < chance).sum(1).clamp(max=ALPHABET - 1))
        return {"input_ids": torch.stack(tokens, 1), "stream": stream}

    def probe(self, counts: Sequence[int]) -> dict[str, torch.Tensor]:
        """Return a batch with so many new sequences of each source."""
        return self.rows(torch.arange(K).repeat_interleave(torch.tensor(counts)))

    def drawn(self, weights: np.ndarray, size: int) -> dict[str, torch.Tensor]:
        """Return a batch whose sources are drawn with these probabilities."""
        return self.rows(torch.multinomial(torch.tensor(weights), size, replacement=True, generator=self._generator))


class Bigram(ComposerModel):
    """The next token from this one: an embedding, a hidden layer, logits; the loss is one number a row."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = torch.nn.Sequential(
                torch.nn.Embedding(ALPHABET, 32),
                torch.nn.Linear(32, 64),
                torch.nn.ReLU(),
                torch.nn.Linear(64, ALPHABET),
            )

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.layers(batch["input_ids"][:, :-1])

    def loss(self, outputs: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        targets = batch["input_ids"][:, 1:]
        return F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape).mean(1)


def composer_state(seed: int) -> State:
    return State(model=Bigram(seed), rank_zero_seed=seed, run_name="planted", device=DeviceCPU())


def measure(state, scored, aggregate=None, targets=ALL, provider="kbackward") -> np.ndarray:
    """Return the scores of all sources, (K,); without `aggregate`, of the same batch."""
    return provider_of(provider).measure(state, scored, aggregate, np.array(targets)).scores


def half_split(state: State, batch: dict[str, torch.Tensor]) -> np.ndarray:
    """Return the scores across the two halves of a batch, (K,): the mean of the one way round and the other."""
    even = torch.arange(len(batch["stream"])) % 2 == 0
    first, second = ({key: column[half] for key, column in batch.items()} for half in (even, ~even))
    return (measure(state, first, second) + measure(state, second, first)) / 2


@dataclass(frozen=True)
class Learning:
    """How weights are learnt: XDoGE's options; eta is the learning rate over its greatest."""

    mu: float = 4.0
    interval: int = 5
    rows: tuple[int, ...] = (8,) * K
    cross_fitted: bool = True
    targets: tuple[float, ...] = ALL
    provider: str = "kbackward"


def train(planted: Planted, state: State, num_batches: int, rate: float, learn: Learning | None = None) -> np.ndarray:
    """Train by Adam at a cosine rate; return the weights at every update, (updates, K): uniform ones unless learnt."""
    optimizer = torch.optim.Adam(state.model.parameters(), rate)
    weights = np.full(K, 1 / K)
    history = [weights]
    for batch in range(1, num_batches + 1):
        eta = (1 + math.cos(math.pi * batch / num_batches)) / 2  # the rate over its greatest
        optimizer.param_groups[0]["lr"] = rate * max(eta, 0.02)
        optimizer.zero_grad()
        row_losses(state.model, planted.drawn(weights, 64)).mean().backward()
        optimizer.step()
        if learn and batch % learn.interval == 0:
            scored = planted.probe(learn.rows)
            aggregate = planted.probe(learn.rows) if learn.cross_fitted else None
            scores = measure(state, scored, aggregate, learn.targets, learn.provider)
            weights = update_weights(weights, scores, eta, learn.mu, FLOOR)
        if batch % 5 == 0:
            history.append(weights)
    return np.array(history)


def heldout(planted: Planted, state: State) -> np.ndarray:
    """Return the loss of every source on 256 new sequences, (K,) nats/token."""
    with torch.no_grad():
        return row_losses(state.model, planted.probe([256] * K)).view(K, -1).mean(1).numpy()


@dataclass(frozen=True)
class Sample:
    """Draws of an estimate of the scores: their mean and its standard error, (K,) each."""

    mean: np.ndarray
    error: np.ndarray

    @classmethod
    def of(cls, draws: list[np.ndarray]) -> Sample:
        return cls(np.mean(draws, axis=0), np.std(draws, axis=0, ddof=1) / math.sqrt(len(draws)))

    def from_truth(self, truth: Sample) -> np.ndarray:
        """Return how far the mean is from the truth, in standard errors of the difference, (K,)."""
        return (self.mean - truth.mean) / np.sqrt(self.error**2 + truth.error**2)


def true_scores(planted: Planted, state: State, rows: int, pairs: int) -> Sample:
    """Return the scores of independent pairs of large batches."""
    return Sample.of([measure(state, planted.probe([rows] * K), planted.probe([rows] * K)) for _ in range(pairs)])


def estimates(planted: Planted, state: State, counts: Sequence[int], draws: int) -> dict[str, Sample]:
    """Return what each way measures with so many sequences of each source; half a split needs 2 of each."""
    own: dict[str, list[np.ndarray]] = {way: [] for way in WAYS}
    for _ in range(draws):
        scored, aggregate = planted.probe(counts), planted.probe(counts)
        own["same batch"].append(measure(state, scored))
        own["cross-fitted"].append(measure(state, scored, aggregate))
        if all(count % 2 == 0 for count in counts):
            own["half split"].append(half_split(state, scored))
    return {way: Sample.of(values) for way, values in own.items() if values}


def noise_energy(planted: Planted, state: State, rows: int) -> np.ndarray:
    """Return tr Cov of the gradient of one sequence, (K,), from `rows` of each source."""
    energies = []
    for source in range(K):
        losses = row_losses(state.model, planted.rows(torch.full((rows,), source)))
        gradients = [torch.autograd.grad(loss, list(state.model.parameters()), retain_graph=True) for loss in losses]
        flat = torch.stack([torch.cat([part.flatten() for part in gradient]).double() for gradient in gradients])
        energies.append(float(flat.var(dim=0).sum()))
    return np.array(energies)


def told(values: np.ndarray, form: str = "12.3f") -> str:
    return " ".join(f"{value:{form}}" for value in values)


def bias(draws: int) -> list[dict]:
    """Print and return (a)."""
    planted, state = Planted(0), composer_state(0)
    train(planted, state, 60, 0.002)
    truth = true_scores(planted, state, 256, 60)
    energy = noise_energy(planted, state, 200)
    print()
    print(f"(a) bias of the score, {draws} probes each".ljust(60) + HEADER)
    print(f"{'truth':60}{told(truth.mean)}\n{'  standard error':60}{told(truth.error)}")
    rows = []
    for counts in ([2] * K, [8] * K, UNEVEN):
        for way, sample in estimates(planted, state, counts, draws).items():
            size = counts[0] if len(set(counts)) == 1 else ",".join(map(str, counts))
            label = f"{way}, {size} sequences"
            apart = sample.from_truth(truth)
            print(f"{label + ': mean / truth':60}{told(sample.mean / truth.mean)}")
            print(f"{'  from the truth, standard errors':60}{told(apart, '12.1f')}")
            row = {"way": way, "sequences": counts, "ratio": (sample.mean / truth.mean).tolist(), "z": apart.tolist()}
            if way == "same batch":
                row["bias_over_theory"] = ((sample.mean - truth.mean) * counts / energy).tolist()
                print(f"{'  bias / (tr Cov / sequences)':60}{told(np.array(row['bias_over_theory']), '12.2f')}")
            row["sd_of_one"] = (sample.error * math.sqrt(draws)).tolist()
            rows.append(row)
    return rows


UNEVEN = (32, 16, 8, 4, 2, 2, 2)
RARE = (16, 16, 16, 16, 1, 1, 1)  # interferers and noise have one sequence in a probe
SHORT, LONG = (200, 0.0007), (600, 0.002)  # batches and learning rate: while the tables are learnt, and long after
RUNS = {
    "uniform": (SHORT, None),
    "XDoGE, cross-fitted": (SHORT, Learning()),
    "XDoGE, same batch": (SHORT, Learning(cross_fitted=False)),
    "XDoGE, cross-fitted, uneven probe": (SHORT, Learning(rows=RARE)),
    "XDoGE, same batch, uneven probe": (SHORT, Learning(rows=RARE, cross_fitted=False)),
    "uniform, long": (LONG, None),
    "XDoGE, long": (LONG, Learning()),
    "XDoGE, long, target helper 1.0": (LONG, Learning(targets=FIRST_HELPER)),
}


def outcome(seeds: int, provider: str) -> list[dict]:
    """Print and return (b)."""
    print()
    print(f"(b) weights learnt, floor {FLOOR}".ljust(60) + HEADER)
    rows = []
    for label, ((num_batches, rate), learning) in RUNS.items():
        if learning:
            learning = Learning(**vars(learning) | {"provider": provider})
        for seed in range(seeds):
            planted, state = Planted(seed), composer_state(seed)
            history = train(planted, state, num_batches, rate, learning)
            losses = heldout(planted, state)
            if learning:
                print(f"{f'{label}, seed {seed}: at the end':60}{told(history[-1])}")
                print(f"{'  mean over the run':60}{told(history.mean(axis=0))}")
            print(f"{f'{label}, seed {seed}: held-out loss':60}{told(losses)}")
            row = {"run": label, "seed": seed, "end": history[-1].tolist(), "mean": history.mean(axis=0).tolist()}
            rows.append(row | {"heldout": losses.tolist()})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scores", default="kbackward", choices=("kbackward", "fd", "jvp"))
    asked = parser.parse_args()
    torch.set_num_threads(1)  # of so small a model more threads make it slower
    begun = time.perf_counter()
    rows = [*bias(asked.draws), *outcome(asked.seeds, asked.scores)]
    print(f"\n{time.perf_counter() - begun:.0f} s")
    print(json.dumps({"benchmark": "planted", "settings": vars(asked), "sources": NAMES, "rows": rows}))


if __name__ == "__main__":
    main()
