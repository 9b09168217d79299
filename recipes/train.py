"""Run a recipe on one process or several: `composer -n 2 recipes/train.py recipes/demo.yaml`.

The same as `mixstream train`, which takes the same options; launchers want a script.
"""

import sys

from mixstream.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
