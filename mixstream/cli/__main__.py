"""``python -m mixstream.cli``."""

from mixstream.cli import main

main()
