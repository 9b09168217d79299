"""The pilots as a SLURM array: a task trains one, and ends at once where it has ended before."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

SCRIPT = """\
#!/bin/bash
# {count} pilots as an array: sbatch {name}
# Options of your cluster stand on its command line (sbatch --gres=gpu:1 --cpus-per-task=8 {name}) or are added below.
# Sent again, tasks whose pilot has ended end at once, and the others go on from their newest checkpoint.
#SBATCH --job-name=pilots
#SBATCH --array=0-{last}
#SBATCH --output="{logs}/%a.log"
set -euo pipefail
: "${{SLURM_ARRAY_TASK_ID:?is not set: send this file with sbatch, or set it to a number from 0 to {last}}}"
python=${{PYTHON:-{python}}}
folder={folder}
pilots=(
{pilots}
)
pilot=${{pilots[SLURM_ARRAY_TASK_ID]}}
if [ -e "$folder/runs/$pilot/result.json" ]; then
  echo "$pilot: complete"
  exit 0
fi
if [ -n "${{SLURM_CPUS_ON_NODE:-}}" ]; then  # pilots beside each other on a node keep to their own cores
  export OMP_NUM_THREADS="${{OMP_NUM_THREADS:-$SLURM_CPUS_ON_NODE}}"
fi
exec "$python" -m mixstream.cli train "$folder/recipes/$pilot.yaml"
"""


def slurm_script(folder: Path, pilots: Sequence[str], python: str) -> str:
    """Return the text of slurm.sh.

    Args:
        folder: of the pilots, absolute: SLURM copies the script before it runs it.
        pilots: their names.
        python: the interpreter that runs them, unless PYTHON names another.
    """
    return SCRIPT.format(
        count=len(pilots),
        last=len(pilots) - 1,
        name=shlex.quote(str(folder / "slurm.sh")),
        logs=folder / "logs",
        python=shlex.quote(python),
        folder=shlex.quote(str(folder)),
        pilots="\n".join(f"  {shlex.quote(name)}" for name in pilots),
    )
