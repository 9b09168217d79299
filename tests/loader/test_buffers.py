"""Memory is used again, and never while anything can still read it."""

from __future__ import annotations

import copy
import pickle
import random
import threading

import pytest
import torch
from reading import plan_of, told

from mixstream.loader import MixtureLoader
from mixstream.loader.buffers import MAX_IDLE, Buffers

KEEP = {
    "tensor": lambda tensor: tensor,
    "row": lambda tensor: tensor[0],
    "slice": lambda tensor: tensor[1:, ::2],
    "numpy": lambda tensor: tensor.numpy()[2],
    "torch again": lambda tensor: torch.from_numpy(tensor[1:].numpy())[0].view(2, 4),
    "detached": lambda tensor: tensor.detach().t(),
    "storage": lambda tensor: torch.tensor([], dtype=torch.int64).set_(tensor.untyped_storage(), 0, (4,)),
    "memory": lambda tensor: memoryview(tensor.numpy()),
    "copy": copy.deepcopy,
    "pickle": lambda tensor: pickle.loads(pickle.dumps(tensor)),
}


@pytest.mark.parametrize("keep", KEEP)
def test_what_is_kept_of_a_batch_is_never_written_again(catalog, keep):
    """Some batches are kept and some let go, in random order."""
    rng = random.Random(keep)
    kept = []
    for batch in MixtureLoader(plan_of(catalog, batches=120), weight_lag=rng.choice([0, 8])):
        if rng.random() < 0.5:
            own = KEEP[keep](batch[rng.choice(["input_ids", "labels"])])
            kept.append((own, own.tolist()))
        if len(kept) > rng.randrange(12):
            del kept[rng.randrange(len(kept))]
        del batch
        assert all(own.tolist() == then for own, then in kept)


def test_a_batch_that_another_thread_holds_is_never_written_again(catalog):
    wrong, threads = [], []

    def watch(tensor, done):
        then = tensor.clone()
        while not done.wait(0.0005):
            if not torch.equal(tensor, then):
                wrong.append(then)

    for batch in MixtureLoader(plan_of(catalog, batches=60)):
        done = threading.Event()
        threads.append((threading.Thread(target=watch, args=(batch["input_ids"][3:], done)), done))
        threads[-1][0].start()
        if len(threads) > 6:
            thread, done = threads.pop(0)
            done.set()
            thread.join()
    for thread, done in threads:
        done.set()
        thread.join()
    assert not wrong


def test_memory_is_used_again_and_little_is_kept():
    buffers = Buffers()
    first = buffers.get((2, 3))
    address = first.ctypes.data
    view = torch.from_numpy(first[1])
    del first
    assert buffers.get((2, 3)).ctypes.data != address
    del view
    assert address in {array.ctypes.data for array in [buffers.get((2, 3)), buffers.get((2, 3))]}
    many = [buffers.get((2, 3)) for _ in range(9)]
    assert len({array.ctypes.data for array in many}) == 9
    assert len(buffers._arrays) == MAX_IDLE


@pytest.mark.parametrize("attempt", range(4))
def test_shards_that_are_closed_while_others_are_brought_in(catalog, monkeypatch, attempt):
    """Three open shards, of 77: both threads close what the other has just opened."""
    plan = plan_of(catalog, batches=60)
    expected = [batch["input_ids"].tolist() for batch in MixtureLoader(plan)]
    monkeypatch.setattr("mixstream.loader.reader.MAX_OPEN_SHARDS", 3)
    assert [batch["input_ids"].tolist() for batch in MixtureLoader(plan)] == expected


def test_an_iteration_that_is_broken_off_leaves_no_thread(catalog):
    plan = plan_of(catalog, batches=40)
    before = threading.active_count()
    loader = MixtureLoader(plan)
    read = []
    with pytest.raises(KeyboardInterrupt):
        for batch in loader:
            read.append(told(batch))
            if len(read) == 5:
                raise KeyboardInterrupt
    del batch
    read += [told(batch) for batch in loader]
    assert read == [told(batch) for batch in MixtureLoader(plan)]
    assert threading.active_count() <= before + 1  # the traceback may keep the first


@pytest.mark.parametrize("kernels", [True, False])
def test_threads_that_close_each_others_shards_read_right(catalog, monkeypatch, kernels):
    """Three threads, room for three shards and a hundred to read: what one closes another may be reading."""
    if not kernels:
        for room in ("reader", "order", "batches"):
            monkeypatch.setattr(f"mixstream.loader.{room}.native", None)
    plan = plan_of(catalog, batches=120, batch_size=3)
    alone = [batch["input_ids"].tolist() for batch in MixtureLoader(plan)]
    monkeypatch.setattr("mixstream.loader.reader.MAX_OPEN_SHARDS", 3)
    for _ in range(3):
        loader = MixtureLoader(plan, num_workers=3)
        assert [batch["input_ids"].tolist() for batch in loader] == alone
        assert len(loader.dataset._reader._open) <= 3
