"""The command that looks at runs while they go on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

WIDE = 10_000  # columns of what is no terminal: nothing is cut off


def watch(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs, or of chains; they need not have begun.")],
    once: Annotated[bool, typer.Option("--once", help="Show it once, all streams, and end.")] = False,
    every: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.1, max=86400)] = 2.0,
) -> None:
    """Show what runs do now, from their folders alone, until they have ended or Ctrl-C."""
    from rich.console import Console
    from rich.live import Live

    from mixstream.report.watch import Watch
    from mixstream.report.watch_frame import Canvas, frame

    watched, console = Watch(runs), Console(highlight=False)
    is_ascii = not console.encoding.lower().startswith("utf")
    if once or not console.is_terminal:
        plain = Console(highlight=False, width=None if console.is_terminal else WIDE)
        plain.print(frame(watched.look(), Canvas(plain.width, None, is_ascii)))
        return
    sights = watched.look()
    try:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(frame(sights, Canvas(console.width, console.height, is_ascii)), refresh=True)
                if all(sight.has_ended for sight in sights) and not watched.may_grow:
                    break
                time.sleep(every)
                sights = watched.look()
    except KeyboardInterrupt:
        pass
    console.print(frame(sights, Canvas(console.width, None, is_ascii)))  # what was seen last stays there
