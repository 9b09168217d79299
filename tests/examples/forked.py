"""Runs examples in processes of their own, forked from one that has imported what they need: a line of JSON each.

A process notes the rows that its model is given, and may be told to kill itself, without a word, in a forward pass.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import socket
import sys
import traceback
from pathlib import Path

import accelerate  # noqa: F401
import lightning
import torch
import transformers


def note_rows(log: Path, kill_at: int | None) -> None:
    """Write the first three tokens of each row of every forward pass, which tell stream and sample."""
    file, passes = log.open("w"), 0

    def note(module, args):
        nonlocal passes
        if not isinstance(module, torch.nn.Embedding):
            return
        passes += 1
        file.write(json.dumps(args[0][:, :3].tolist()) + "\n")
        file.flush()
        if passes == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    torch.nn.modules.module.register_module_forward_pre_hook(note)


def run(order: dict) -> list[int]:
    """Run an example on some ranks; return how each ended, as subprocess tells it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = [_forked(order, rank, port) for rank in range(order["ranks"])]
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def _forked(order: dict, rank: int, port: int) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        signal.alarm(150)  # ends a process that hangs
        output = os.open(f"{order['log']}.output{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        if order["ranks"] > 1:
            _place(rank, order["ranks"], port)
        note_rows(Path(f"{order['log']}.rank{rank}"), order["kill_at"])
        sys.argv = [order["example"], *order["arguments"]]
        runpy.run_path(order["example"], run_name="__main__")
        status = 0
    finally:
        if status:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _place(rank: int, ranks: int, port: int) -> None:
    """Say what torchrun says."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "GROUP_RANK": "0",
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "examples",
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    assert transformers.Trainer
    assert lightning.Trainer  # both imported lazily, and so now
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)
