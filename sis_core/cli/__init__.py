"""The ``sis`` program. One file a command; each is imported only when it was typed."""

from sis_core.cli.main import main as main
