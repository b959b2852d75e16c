"""``python -m sis_core`` is ``sis``."""

from sis_core.cli import main

main(prog_name="sis")
