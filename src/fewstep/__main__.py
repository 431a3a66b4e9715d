"""``python -m fewstep``."""

from fewstep.cli import main

main()
