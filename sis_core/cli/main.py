"""The command group: lists commands without importing them, and turns errors into one line and an exit code."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

import click

from sis_core.cli.streams import OneLine, say
from sis_core.errors import SisError
from sis_core.machine.collector import no_collection

COMMANDS = {  # name: the line that `sis --help` shows; the command itself is `command` in sis_core.cli.<name>
    "generate": "Continue a text.",
    "inspect": "Show what is in a model file.",
    "tokenize": "Turn text into token ids, or ids into text.",
    "embed": "Turn texts into vectors.",
    "plugins": "List plugins, what they offer, and what is wrong with the broken ones.",
    "samplers": "List samplers and their options.",
    "quantize": "Write a model in another weight format.",
    "imatrix": "Measure which weights matter, for quantize.",
    "eval": "Perplexity on a text, and the distance from another model.",
    "compare-formats": "One model in several formats, side by side.",
    "bench": "Tokens a second, also beside llama.cpp.",
    "profile": "Where the time of a token goes.",
    "cache": "What a prompt cache holds; empty it.",
    "new": "Write a plugin to start from, with its test.",
    "doctor": "Check this machine, the plugins and a model.",
}
EXIT_ERROR, EXIT_INTERRUPTED = 1, 130
GLOBAL_WITH_VALUE = ("--plugin", "--prefer")
GLOBAL_HELP = "Also --plugin FILE, --prefer NAME=PLUGIN and -v, see `sis --help`."
GLOBAL_FLAG = re.compile(r"-v+|--verbose")


class LazyGroup(click.Group):
    """A group whose commands are imported when typed. Global options may stand anywhere on the line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *sorted({*_foreign_commands(), *_commands_in_files(ctx)} - set(COMMANDS))]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        found = self._find(ctx, name)
        if found and found.epilog is None:
            found.epilog = GLOBAL_HELP
        return found

    def _find(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in COMMANDS:
            with no_collection():
                command: click.Command = import_module(f"sis_core.cli.{name.replace('-', '_')}").command
            return command
        if name in _foreign_commands() or name in _commands_in_files(ctx):
            from sis_core.cli.common import registry_of

            found: click.Command = registry_of(ctx).get("commands", name, where=f"sis {name}")
            return found
        return None

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        try:
            name, command, rest = super().resolve_command(ctx, args)
            if name and command and "--help" not in rest:
                from sis_core.cli.config import defaults_for

                ctx.default_map = {name: defaults_for(command, name, ctx)}
            return name, command, rest
        except click.UsageError:
            from sis_core.errors import package_for, suggest

            if (package := package_for("commands", args[0])) is not None:
                raise click.UsageError(f"{args[0]} comes with `pip install {package}`", ctx) from None
            known = self.list_commands(ctx)
            hint = suggest(args[0], known) or f". There are: {', '.join(known)}"
            raise click.UsageError(f"no such command {args[0]!r}{hint}", ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # Click would import every command for its help line.
        origins = _foreign_commands() | _commands_in_files(ctx)
        foreign = {name: f"(from {origin})" for name, origin in origins.items()}
        with formatter.section("Commands"):
            formatter.write_dl([(name, {**foreign, **COMMANDS}[name]) for name in self.list_commands(ctx)])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, hoist(args))


def hoist(args: Sequence[str]) -> list[str]:
    """Move the global options to the front; what follows ``--`` stays where it is."""
    front: list[str] = []
    rest: list[str] = []
    items = iter(args)
    for arg in items:
        if arg == "--":
            rest += [arg, *items]
        elif GLOBAL_FLAG.fullmatch(arg) or arg.startswith(tuple(f"{name}=" for name in GLOBAL_WITH_VALUE)):
            front.append(arg)
        elif arg in GLOBAL_WITH_VALUE:
            front += [arg, *[value for value in [next(items, None)] if value is not None]]
        else:
            rest.append(arg)
    return front + rest


def _foreign_commands() -> dict[str, str]:
    """Commands of installed plugins and the package each comes from, without importing any."""
    from importlib.metadata import entry_points

    return {point.name: point.dist.name if point.dist else "?" for point in entry_points(group="sis.commands")}


def _commands_in_files(ctx: click.Context) -> dict[str, str]:
    """Commands of the files that --plugin names, and the file each comes from."""
    if not ctx.find_root().params.get("plugins"):
        return {}
    from sis_core.cli.common import registry_of

    registry = registry_of(ctx)
    files = {plugin.name: plugin.origin for plugin in registry.plugins if plugin.named}
    return {
        name: files[entry.plugin]
        for entry in registry.entries("commands")
        if entry.plugin in files
        for name in entry.names
    }


def _version(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        click.echo(f"sis {version('sis-core')}")
        ctx.exit()


@click.group(cls=LazyGroup, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--plugin", "plugins", multiple=True, metavar="FILE", is_eager=True,  # before --help, which lists it
              help="Also load a plugin from one Python file.")  # fmt: skip
@click.option("--prefer", "prefer", multiple=True, metavar="NAME=PLUGIN", help="Settle a name that two plugins claim.")
@click.option("-v", "--verbose", count=True, help="Say more; twice for debugging.")
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
@click.pass_context
def group(ctx: click.Context, plugins: tuple[str, ...], prefer: tuple[str, ...], verbose: int) -> None:
    """Run language models from GGUF files. Every format, kernel, family, tokenizer and sampler is a plugin."""
    prefer_pairs(prefer)  # a bad one is refused before any command runs
    level = [logging.WARNING, logging.INFO, logging.DEBUG][min(verbose, 2)]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine("%(levelname)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
    if ctx.invoked_subcommand is None:
        from sis_core.cli.welcome import welcome

        welcome(ctx, set(group.list_commands(ctx)))


def prefer_pairs(items: Sequence[str]) -> dict[str, str]:
    """NAME=PLUGIN options as a mapping; a UsageError for anything else."""
    pairs = {}
    for item in items:
        name, equals, plugin = item.partition("=")
        if not (name and equals and plugin):
            raise click.UsageError(f"--prefer {item}: write it as NAME=PLUGIN")
        pairs[name] = plugin
    return pairs


def main(args: Sequence[str] | None = None, prog_name: str = "sis") -> NoReturn:
    """Run the program and exit: 0 done, 1 error, 2 wrong usage, 130 interrupted."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by who started us: `>&-`
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - as long as the program
    try:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")  # a model may say what the terminal cannot show
        if "_SIS_COMPLETE" in os.environ:
            import_module("sis_core.cli.bash")  # click knows of it from then on
        code = group.main(args=None if args is None else list(args), prog_name=prog_name, standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except SisError as error:
        _leave_if_interrupted(error)
        say(f"sis: {error}")
        sys.exit(EXIT_ERROR)
    except (KeyboardInterrupt, click.Abort):
        click.echo(err=True)
        sys.exit(EXIT_INTERRUPTED)
    except MemoryError:
        click.echo("sis: out of memory. Ask for a shorter context (--ctx) or use a smaller file", err=True)
        sys.exit(EXIT_ERROR)
    except BrokenPipeError:  # the reader has gone (`sis … | head`): say nothing
        _drop_output()
        sys.exit(EXIT_ERROR)
    except OSError as error:  # a full disk under a redirected output, a closed stream, no file descriptors left
        _leave_if_interrupted(error)
        _drop_output()
        say(f"sis: {error.filename or 'output'}: {error.strerror or error}")
        sys.exit(EXIT_ERROR)
    except Exception as error:
        _leave_if_interrupted(error)
        raise
    sys.exit(code if isinstance(code, int) else 0)  # click hands the code of ctx.exit() back


def _leave_if_interrupted(error: BaseException) -> None:
    """An error on the way out of an interrupt is none: it exits as the interrupt does."""
    cause = error.__context__
    while cause is not None:
        if isinstance(cause, KeyboardInterrupt):
            click.echo(err=True)
            sys.exit(EXIT_INTERRUPTED)
        cause = cause.__context__


def _drop_output() -> None:
    """So that Python does not fail again when it flushes at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
