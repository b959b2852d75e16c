"""The command group: lists commands without importing them."""

from __future__ import annotations

import click


@click.group()
def main() -> None:
    """Run language models from GGUF files."""
