"""``python -m elman``."""

from elman.entry import main

main()
