"""What learning weights costs: training steps with scores measured every tenth batch, over plain ones, on a CPU.

Isolates the measurement: Composer's Trainer, a small Llama in float32, batches drawn in memory; 210 rows a batch and a
probe, which are 35 of each of 6 sources, or 3 of each of 70: the same tokens. What a method does with the scores takes
microseconds, and reading the probes what reading two more training batches does; neither is in it.

    python benchmarks/update_cost.py [--repeats 3] [--rows 210] [--sequence 32]
"""

from __future__ import annotations

import argparse
from dataclasses import asdict

from measure import report
from updates import Setting, measured

MODEL = {
    "vocab_size": 1024,
    "hidden_size": 96,
    "intermediate_size": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", type=int, default=210, help="a multiple of 210")
    parser.add_argument("--sequence", type=int, default=32)
    asked = parser.parse_args()
    setting = Setting(MODEL, asked.rows, asked.sequence, microbatch=70, device="cpu", precision="fp32")
    rows, _ = measured(setting, asked.repeats)
    report("update_cost", rows, repeats=asked.repeats, setting=asdict(setting))


if __name__ == "__main__":
    main()
