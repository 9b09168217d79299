"""Which weights are best at equal tokens: rules, and methods that learn them on a proxy, over several seeds.

A folder of corpora is converted once, with languages made scarce (--shares); every method then trains a base model of
the same size, seed, tokens and repeat budgets, which differs in its weights alone, and is measured on held-out text.
Online methods first train a proxy of the same size and tokens: they cost about two runs. The table says so.

    python benchmarks/arena.py FOLDER_OF_CORPORA [--work runs/arena] [--only xdoge,uniform] [--seeds 3]
    python benchmarks/arena.py FOLDER_OF_CORPORA --device gpu --at-once 4 --threads 3 [--size 30M]

Runs are `mixstream train`, some at a time (--at-once), each in a process of its own. What has ended is kept in the work
folder: the same command goes on after a stop, and tells of what there is (--report tells only).
The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import yaml
from arena_figures import Ended, as_json, lines_of, tables
from arena_recipes import DEVICES, METHODS, REFERENCE, SIZES, Setting, Task, tasks_of, weights_of

sys.path.insert(0, str(Path(__file__).parent.parent))
from mixstream.mixture.plan import Plan
from mixstream.mixture.weights import save_weights
from mixstream.runs.learnt import learnt_by
from mixstream.runs.sections import AverageRecipe
from mixstream.streams.catalog import Catalog

POLL_SECONDS = 0.5
MIXSTREAM = (sys.executable, "-m", "mixstream.cli")


class ArenaError(Exception):
    """The arena cannot go on; the message says why and what to do."""


def environment(threads: int) -> dict[str, str]:
    """Return the environment of a run: so many threads, this checkout's mixstream."""
    root = str(Path(__file__).parent.parent)
    path = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH")) if part)
    return os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": path}


def prepare(setting: Setting, corpora: Path, work: Path) -> None:
    """Train the tokenizer and convert the corpora, unless that was done; each share is a subsample of documents."""
    tokenizer, done = work / "tokenizer.json", work / "streams.done"
    made = ("vocabulary", "sequence_length", "holdout", "shares")
    how = json.dumps({"corpora": str(corpora), **{name: getattr(setting, name) for name in made}})
    if done.exists() and done.read_text() == how:
        return
    if done.exists():
        raise ArenaError(f"{work}: its streams are {done.read_text()}, asked for {how}; choose another --work")
    work.mkdir(parents=True, exist_ok=True)
    holdout = ("--holdout", str(setting.holdout))
    if setting.vocabulary:
        vocabulary = ("--vocab-size", str(setting.vocabulary))
        _call("tokenizer", "train", str(corpora), "--out", str(tokenizer), *vocabulary, *holdout)
    made_by = ("--tokenizer", str(tokenizer) if setting.vocabulary else "byte")
    rows = ("--sequence-length", str(setting.sequence_length))
    for share, files in sorted(by_share(corpora, setting.shares).items()):
        whole = () if share == 1 else ("--subsample", str(share))
        _call("convert", *files, "--out", str(work / "streams"), *made_by, *rows, *holdout, *whole)
    done.write_text(how)


def by_share(corpora: Path, shares: str) -> dict[float, list[str]]:
    """Return the files of a folder of corpora by the share of their documents that is trained on.

    Args:
        corpora: files named LANGUAGE.DOMAIN.FORMAT, or folders named LANGUAGE.DOMAIN.
        shares: such as ``eu=0.1,ca.spoken=0.2``; a stream's own counts before its language's.
    """
    given = {name: float(share) for name, _, share in (part.partition("=") for part in shares.split(",") if part)}
    files: dict[float, list[str]] = defaultdict(list)
    for path in sorted(corpora.iterdir()):
        language, *rest = path.name.split(".")
        if rest and (path.is_dir() or len(rest) > 1):
            files[given.get(f"{language}.{rest[0]}", given.get(language, 1.0))].append(str(path))
    if not files:
        raise ArenaError(f"{corpora}: no file such as eu.wiki.jsonl.zst")
    return files


def _call(*arguments: str) -> None:
    """Run a command of mixstream to its end."""
    done = subprocess.run([*MIXSTREAM, *arguments], env=environment(1), capture_output=True, text=True, check=False)
    if done.returncode:
        raise ArenaError(f"mixstream {arguments[0]} failed: {_end_of(done.stderr + done.stdout)}")


def _end_of(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1][:400]


def run_all(tasks: list[Task], work: Path, at_once: int, threads: int) -> list[str]:
    """Run what has not ended, `at_once` at a time; return what failed, a sentence each."""
    waiting = [task for task in tasks if not has_ended(task, work)]
    running: dict[str, tuple[Task, subprocess.Popen[bytes], float]] = {}
    failed: dict[str, str] = {}
    try:
        while waiting or running:
            for task in list(waiting):
                if lost := [name for name in task.needs if name in failed]:
                    failed[task.name] = f"{task.name}: not run, since {lost[0]} failed"
                    waiting.remove(task)
                elif len(running) < at_once and all(_is_ready(name, tasks, work) for name in task.needs):
                    waiting.remove(task)
                    running[task.name] = (task, _start(task, work, threads), time.perf_counter())
            for task, process, begun in list(running.values()):
                if process.poll() is None:
                    continue
                del running[task.name]
                if process.returncode or not has_ended(task, work):
                    log = work / f"{task.name}.log"
                    why = f"{_end_of(log.read_text(errors='replace'))} (all of it is in {log})"
                    failed[task.name] = f"{task.name}: failed with status {process.returncode}: {why}"
                told = failed.get(task.name, f"{task.name}: {time.perf_counter() - begun:.0f} s")
                print(f"{told}; {len(waiting)} wait", file=sys.stderr, flush=True)
            time.sleep(POLL_SECONDS)
    finally:
        for _, process, _ in running.values():
            process.terminate()
            process.wait()
    return list(failed.values())


def _is_ready(name: str, tasks: list[Task], work: Path) -> bool:
    return has_ended(next(task for task in tasks if task.name == name), work)


def has_ended(task: Task, work: Path) -> bool:
    """Return whether a run has ended; of a proxy, average its weights.

    Raises:
        ArenaError: another run than this one is there.
    """
    asked, out = work / f"{task.name}.yaml", work / task.name
    if not (out / "result.json").exists():
        return False
    if asked.read_text() != yaml.safe_dump(task.recipe, sort_keys=False):
        raise ArenaError(f"{out}: a run of other settings; choose another --work, or remove it")
    if task.average_last is not None and not weights_of(work, task.name).exists():
        batches = _result(out)["batches"]
        save_weights(
            weights_of(work, task.name), learnt_by(out, AverageRecipe(last=task.average_last), batches), str(out)
        )
    return True


def _start(task: Task, work: Path, threads: int) -> subprocess.Popen[bytes]:
    asked = work / f"{task.name}.yaml"
    asked.parent.mkdir(parents=True, exist_ok=True)
    asked.write_text(yaml.safe_dump(task.recipe, sort_keys=False))
    with (work / f"{task.name}.log").open("wb") as log:
        command = [*MIXSTREAM, "train", str(asked)]
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment(threads))


def _result(out: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((out / "result.json").read_text())
    return result


def collect(work: Path, methods: Iterable[str], seeds: Iterable[int]) -> dict[str, dict[int, Ended]]:
    """Return the base runs that have ended: {method: {seed: run}}."""
    ended: dict[str, dict[int, Ended]] = defaultdict(dict)
    for method in methods:
        for seed in seeds:
            out = work / f"seed-{seed}" / method
            if (out / "result.json").exists():
                ended[method][seed] = _ended(out)
    return ended


def _ended(out: Path) -> Ended:
    result, plan = _result(out), Plan.load(out / "plan.json")
    drawn: dict[str, int] = defaultdict(int)
    sizes: dict[str, int] = defaultdict(int)
    for entry in plan.entries:
        drawn[entry.language or entry.name] += entry.samples
        sizes[entry.language or entry.name] += entry.num_samples
    proxy = out.with_name(f"{out.name}-proxy")
    learnt = _result(proxy) if (proxy / "result.json").exists() else {"seconds": 0.0, "tokens": 0}
    return Ended(
        {language: loss["bits_per_byte"] for language, loss in result["languages"].items()},
        {language: count / sum(drawn.values()) for language, count in drawn.items()},
        {language: count / sizes[language] for language, count in drawn.items()},
        result["seconds"],
        result["tokens"],
        learnt["seconds"],
        learnt["tokens"],
    )


def unique_tokens(streams: Path) -> dict[str, int]:
    """Return the tokens of each language that is trained on."""
    unique: dict[str, int] = defaultdict(int)
    for stream in Catalog.open(streams):
        unique[stream.name.partition(".")[0]] += stream.num_tokens
    return dict(sorted(unique.items()))


def asked_for() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpora", type=Path, help="a folder of files named LANGUAGE.DOMAIN.FORMAT")
    parser.add_argument("--work", type=Path, default=Path("runs/arena"), help="streams and runs; goes on with them")
    parser.add_argument("--only", default=",".join(METHODS), help="methods; uniform always runs")
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--device", choices=list(DEVICES), default="cpu", help="decides the defaults of what follows")
    for one in fields(Setting):
        if one.name not in ("device", "updates"):
            kind = type(one.default)
            choices = list(SIZES) if one.name == "size" else None
            parser.add_argument(f"--{one.name.replace('_', '-')}", type=kind, choices=choices)
    parser.add_argument("--at-once", type=int, default=2, help="runs at a time")
    parser.add_argument("--threads", type=int, default=1, help="of each run")
    parser.add_argument("--prepare", action="store_true", help="convert, and run nothing")
    parser.add_argument("--report", action="store_true", help="tell of what has ended, and run nothing")
    parser.add_argument("--markdown", type=Path, help="write the tables there, too")
    return parser.parse_args()


def main() -> None:
    asked = asked_for()
    given = {one.name: getattr(asked, one.name, None) for one in fields(Setting)}
    setting = replace(DEVICES[asked.device], **{name: value for name, value in given.items() if value is not None})
    methods = tuple(asked.only.split(","))
    if unknown := set(methods) - set(METHODS):
        raise ArenaError(f"--only {unknown.pop()}: expected some of {','.join(METHODS)}")
    seeds = tuple(range(asked.first_seed, asked.first_seed + asked.seeds))
    prepare(setting, asked.corpora, asked.work)
    failed: list[str] = []
    if asked.prepare:
        return
    if not asked.report:
        failed = run_all(tasks_of(setting, asked.work, methods, seeds), asked.work, asked.at_once, asked.threads)
    lines = lines_of(collect(asked.work, METHODS, seeds), REFERENCE)
    unique = unique_tokens(asked.work / "streams")
    print(tables(lines, unique, REFERENCE))
    for problem in failed:
        print(problem)
    if asked.markdown:
        asked.markdown.write_text(tables(lines, unique, REFERENCE, markdown=True) + "\n")
    told = {"benchmark": "arena", "settings": asdict(setting), "unique_tokens": unique, "failed": failed}
    print(json.dumps(told | {"rows": as_json(lines)}))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    try:
        main()
    except ArenaError as problem:
        sys.exit(f"arena: {problem}")
