"""The ``sis`` program. One file a command; each is imported only when it was typed."""

import sys

try:
    from sis_core.cli.main import main as main
except KeyboardInterrupt:  # typed before there is a program that could take it
    print(file=sys.stderr)
    sys.exit(130)
