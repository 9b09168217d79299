"""What learning weights costs on one GPU: step times and peak memory, with a Llama of 134M parameters in bf16.

The same as benchmarks/update_cost.py, at the sizes of a proxy run: 12 layers of 768, a vocabulary of 32,000, rows of
1,024 tokens, bf16 autocast; 210 rows a batch and a probe, 35 at a time. It needs `pip install -e '.[train]'` and CUDA,
and takes about 10 minutes.

    python benchmarks/gpu/update_cost.py [--repeats 3] [--rows 210] [--sequence 1024] [--microbatch 35]
    python benchmarks/gpu/update_cost.py --tiny        # on a CPU: whether it runs
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from measure import Row, report
from updates import Setting, measured

MODEL = {
    "vocab_size": 32_000,
    "hidden_size": 768,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
}
TINY = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", type=int, default=210, help="a multiple of 210")
    parser.add_argument("--sequence", type=int, default=1024)
    parser.add_argument("--microbatch", type=int, default=35)
    parser.add_argument("--tiny", action="store_true", help="on a CPU, in float32, with next to no model")
    asked = parser.parse_args()
    if asked.tiny:
        setting = Setting(TINY, 210, 8, microbatch=105, device="cpu", precision="fp32", interval=2)
    elif torch.cuda.is_available():
        setting = Setting(MODEL, asked.rows, asked.sequence, asked.microbatch, device="gpu", precision="amp_bf16")
    else:
        parser.error("torch finds no GPU; --tiny runs on a CPU")
    rows, memory = measured(setting, asked.repeats)
    rows.append(Row("peak of GPU memory", "MB", memory, notes=[] if memory else ["no GPU"]))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    report("gpu/update_cost", rows, repeats=asked.repeats, device_name=device, setting=asdict(setting))


if __name__ == "__main__":
    main()
