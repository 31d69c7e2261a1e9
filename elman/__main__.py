"""``python -m elman``."""

from elman.cli.entry import main

main()
