"""The arena's runs as recipes: one setting for all methods, and what each method changes of it.

A method is a rule (`natural`, `unimax:4`) whose base run starts at once, or it learns weights on a proxy of the same
size, tokens and repeat budgets; the base run then uses the proxy's weights, averaged over its last part. All base runs
of one seed differ in their weights alone: initial model, order within each stream, learning rates, tokens are the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

SIZES = {  # hidden, intermediate, layers, heads; parameters with the vocabulary of the device's setting below
    "2M": (192, 512, 2, 6),
    "5M": (256, 688, 4, 8),
    "10M": (320, 864, 6, 5),
    "30M": (512, 1376, 8, 8),
    "125M": (768, 2048, 16, 12),
}
RULES = {"natural": "natural", "uniform": "uniform", "temperature": "temperature:0.3", "unimax": "unimax:4"}
ONLINE = ("xdoge-paper", "xdoge", "doremi")
METHODS = (*RULES, *ONLINE)
REFERENCE = "uniform"  # what others are compared with, and DoReMi's reference model
PROXY_SEEDS = 1000  # a proxy has other initial weights and another order than its base run

# Unique text is scarce as users have it: two languages of plenty, two in the middle, two with little.
SHARES = "pt=0.2,ca.spoken=0.05,ca.commands=0.5,gl=0.03,eu.spoken=0.05,eu.wiki=0.01"


@dataclass(frozen=True)
class Setting:
    """What all runs of an arena have in common.

    Attributes:
        size: one of `SIZES`.
        tokens: of each run, base or proxy.
        max_repeats: repeat budget of every stream, in every run.
        shares: share of a stream's, or a language's, documents that is trained on; what it does not name is whole.
        vocabulary: tokens of the BPE that is trained on the corpora; 0: bytes.
        updates: how often an online method changes its weights, about.
        mu, mu_paper: XDoGE's, of our form and of the paper's. The two are in other units: ours divides scores by
            their mean size. The paper's is within the range of DoGE's configurations. Both were chosen by how far
            a proxy's weights move against the noise of its scores, on a seed that the arena does not use. Its held-out
            text is the arena's, and had been seen by then.
    """

    size: str = "2M"
    tokens: int = 655_360
    batch_size: int = 16
    sequence_length: int = 128
    learning_rate: float = 2e-3
    max_repeats: float = 16.0
    shares: str = SHARES
    vocabulary: int = 4096
    holdout: float = 0.1
    heldout_samples: int = 96
    device: str = "cpu"
    updates: int = 40
    sequences_per_stream: int = 8
    mu: float = 0.02
    mu_paper: float = 0.05

    @property
    def num_batches(self) -> int:
        return self.tokens // (self.batch_size * self.sequence_length)


DEVICES = {
    "cpu": Setting(),
    "gpu": Setting(
        size="30M",
        tokens=20_000_000,
        batch_size=32,
        sequence_length=512,
        learning_rate=1e-3,
        vocabulary=8192,
        heldout_samples=160,
        shares="gl=0.5,eu.wiki=0.2",
        device="gpu",
        updates=120,
    ),
}


@dataclass(frozen=True)
class Task:
    """One run.

    Attributes:
        name: a folder within the work folder.
        recipe: as YAML says it.
        needs: names of the runs that must have ended.
        average_last: of a proxy: share of its batches, at its end, whose weights are averaged; None: a base run.
    """

    name: str
    recipe: dict[str, Any]
    needs: tuple[str, ...] = ()
    average_last: float | None = None


def tasks_of(setting: Setting, work: Path, methods: tuple[str, ...], seeds: tuple[int, ...]) -> list[Task]:
    """Return all runs, seed by seed, in an order in which they can be run; the reference is always among them."""
    tasks = []
    wanted = [method for method in METHODS if method in {*methods, REFERENCE}]
    for seed in seeds:
        for method in sorted(wanted, key=lambda name: name != REFERENCE):  # DoReMi's proxy waits for it
            tasks += _of_method(setting, work, method, seed)
    return tasks


def _of_method(setting: Setting, work: Path, method: str, seed: int) -> list[Task]:
    name = f"seed-{seed}/{method}"
    if method in RULES:
        return [Task(name, base_recipe(setting, work, name, RULES[method], seed))]
    proxy = f"{name}-proxy"
    needs = (f"seed-{seed}/{REFERENCE}",) if method == "doremi" else ()
    recipe = base_recipe(setting, work, proxy, "uniform", PROXY_SEEDS + seed) | {"kind": "proxy"}
    recipe["method"] = method_section(setting, work, method, seed)
    weights = str(weights_of(work, proxy))
    return [
        Task(proxy, recipe, needs, average_last=1.0 if method == "doremi" else 0.5),
        Task(name, base_recipe(setting, work, name, weights, seed), (proxy,)),
    ]


def weights_of(work: Path, proxy: str) -> Path:
    """Return where the averaged weights of a proxy are."""
    return work / f"{proxy}.json"


def base_recipe(setting: Setting, work: Path, name: str, weights: str, seed: int) -> dict[str, Any]:
    """Return a recipe that differs from run to run in name, weights and seed alone."""
    hidden, intermediate, layers, heads = SIZES[setting.size]
    on_gpu = setting.device == "gpu"
    return {
        "version": 1,
        "kind": "base",
        "streams": str(work / "streams"),
        "out": str(work / name),
        "seed": seed,
        "mixture": {
            "weights": weights,
            "budget_tokens": setting.tokens,
            "batch_size": setting.batch_size,
            "max_repeats": setting.max_repeats,
        },
        "model": {
            "hidden_size": hidden,
            "intermediate_size": intermediate,
            "num_layers": layers,
            "num_heads": heads,
        },
        "training": {
            "learning_rate": setting.learning_rate,
            "final_learning_rate": 0.1,
            "warmup_batches": max(1, setting.num_batches // 20),
            "microbatch_size": setting.batch_size,
            "checkpoint_batches": max(1, setting.num_batches // 4),
            "log_batches": max(1, setting.num_batches // 20),
            "heldout_samples": setting.heldout_samples,
            "weight_lag": 1,
            "device": "gpu" if on_gpu else "cpu",
            "precision": "amp_bf16" if on_gpu else "fp32",
        },
    }


def method_section(setting: Setting, work: Path, method: str, seed: int) -> dict[str, Any]:
    """Return what an online method's proxy adds to the recipe."""
    interval = max(1, setting.num_batches // setting.updates)
    common = {
        "interval_batches": interval,
        "warmup_batches": max(1, setting.num_batches // 20),  # while the learning rate rises
        "sequences_per_stream": setting.sequences_per_stream,
    }
    xdoge = {"name": "xdoge", "scores": "fd", "floor": 0.02, "floor_form": "kl"}
    if method == "xdoge-paper":  # proxy samples uniformly, losses carry the weights, both gradients of one batch
        form = {"form": "paper", "mu": setting.mu_paper}
        return common | xdoge | form | {"apply": "loss", "probe": "same_batch"}
    if method == "xdoge":  # cross-fitted, proxy samples by the weights, capped by the base run's repeat budgets
        # Divided by their mean size: gradients are far larger at some steps, which else decide alone.
        form = {"form": "normalised", "mu": setting.mu}
        caps = {"budget_tokens": setting.tokens, "max_repeats": setting.max_repeats}
        return common | xdoge | form | {"apply": "sampling", "probe": "crossfit", "caps": caps}
    reference = {"name": "doremi", "apply": "loss", "reference": str(work / f"seed-{seed}" / REFERENCE)}
    return common | reference | {"floor": 0.0}
