"""Threads that take the most urgent piece of work whenever they are free."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

CLOSE_SECONDS = 1.0  # that `close` waits for threads, which may wait for an answer

Task = Callable[[], None]


class Workers:
    """Threads that ask for a task, do it, and ask again; as many as there is work for.

    Attributes:
        changed: held while tasks are asked for; whoever changes what there is to do holds it and calls `wake`.
        stop: set when they are to end.
        crash: what a task raised, a defect of ours: all threads end with it.
    """

    def __init__(
        self,
        most: int,
        next_task: Callable[[], Task | None],
        pause: Callable[[], float | None],
        end: Callable[[], None],
    ) -> None:
        """Begin without threads.

        Args:
            most: threads at a time.
            next_task: returns the most urgent task, or None.
            pause: seconds after which one of the threads is to ask again unasked; None: when woken.
            end: called once, when the last thread has ended after `close`.
        """
        self._most = most
        self._next_task = next_task
        self._pause = pause
        self._end = end
        self._threads: list[threading.Thread] = []
        self._has_ended = False
        self.changed = threading.Condition()
        self.stop = threading.Event()
        self.crash: Exception | None = None

    def wake(self, tasks: int) -> None:
        """Have threads ask for tasks, of which there are about so many."""
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        for _ in range(min(self._most, tasks) - len(self._threads) if not self.stop.is_set() else 0):
            thread = threading.Thread(target=self._run, name="mixstream-fetch", daemon=True)
            self._threads.append(thread)
            thread.start()
        self.changed.notify_all()

    def close(self) -> None:
        """End the threads; one that waits for an answer ends with that.

        It may be called by one of them: whoever has them may be found to be garbage by any thread.
        """
        with self.changed:
            self.stop.set()
            self.changed.notify_all()
            threads = [thread for thread in self._threads if thread is not threading.current_thread()]
        until = time.monotonic() + CLOSE_SECONDS
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        self._end_if_last()

    def _run(self) -> None:
        try:
            while (task := self._wait()) is not None:
                task()
        except Exception as crash:  # noqa: BLE001  who waits for the task would wait for ever: it raises this
            with self.changed:
                self.crash = crash
                self.stop.set()
                self.changed.notify_all()
        finally:
            with self.changed:
                self._threads = [thread for thread in self._threads if thread is not threading.current_thread()]
            if self.stop.is_set():
                self._end_if_last()

    def _wait(self) -> Task | None:
        """Return the next task, or None where the threads are to end."""
        with self.changed:
            while not self.stop.is_set():
                if (task := self._next_task()) is not None:
                    return task
                pause = self._pause()
                self.changed.wait(None if pause is None else pause * len(self._threads))
        return None

    def _end_if_last(self) -> None:
        with self.changed:
            if self._has_ended or any(thread.is_alive() for thread in self._threads):
                return
            self._has_ended = True
        self._end()
