"""Options are written once: `load`, the commands and the help say the same."""

from __future__ import annotations

import inspect

import attrs
import click
import pytest
from click.testing import CliRunner

import sis_core
from sis_core.cli.main import group
from sis_core.errors import SisError
from sis_core.loading.options import LoadOptions

FIELDS = attrs.fields(LoadOptions)
COMMANDS = ("generate", "doctor", "bench", "eval", "profile", "compare-formats", "quantize", "imatrix")


def test_load_takes_every_option_with_its_default() -> None:
    parameters = inspect.signature(sis_core.load).parameters
    own = {
        name: p.default
        for name, p in parameters.items()
        if name not in ("model", "layers", "preset", "progress", "registry")
    }
    assert own == {field.name: field.default for field in FIELDS}
    for field in FIELDS:
        assert f"{field.name}: {field.metadata['help']}" in (sis_core.load.__doc__ or "")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_spells_an_option_as_its_field_says(name: str) -> None:
    command = group.get_command(click.Context(group), name)
    assert command is not None
    params = {p.name: p for p in command.params if isinstance(p, click.Option)}
    found = [field for field in FIELDS if field.name in params and field.metadata["flag"]]
    assert "n_threads" in {field.name for field in found}
    for field in found:
        param = params[field.name]
        assert "/".join([*param.opts, *param.secondary_opts]) == field.metadata["flag"]
        if name in ("generate", "doctor"):
            assert param.default == field.default
            assert param.help == field.metadata["help"]


@pytest.mark.parametrize("name", ["generate", "doctor"])
def test_commands_that_run_a_model_have_them_all(name: str) -> None:
    command = group.get_command(click.Context(group), name)
    assert command is not None
    assert {field.name for field in FIELDS if field.metadata["flag"]} <= {p.name for p in command.params}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_ctx": 0}, "n_ctx: is 0, but must be at least 1"),
        ({"n_threads": 0}, "n_threads: is 0, but must be at least 1"),
        ({"n_threads": "2"}, "n_threads: is '2', but must be a whole number"),
        ({"n_threads": True}, "n_threads: is True, but must be a whole number"),
        ({"on_error": "degrad"}, "on_error: is 'degrad', but must be strict or degrade"),
        ({"memory_limit": -1}, "memory_limit: is -1, but must be at least 0"),
    ],
)
def test_python_checks_what_the_program_checks(options: dict[str, object], message: str) -> None:
    with pytest.raises(SisError) as caught:
        LoadOptions(**options)  # type: ignore[arg-type]
    assert str(caught.value) == message


def test_help_shows_the_choices() -> None:
    shown = CliRunner().invoke(group, ["generate", "--help"]).output
    assert "--on-error [strict|degrade]" in shown
    assert "-t, --threads" in shown
