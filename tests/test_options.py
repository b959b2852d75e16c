"""Options are written once: `load`, the commands and the help say the same."""

from __future__ import annotations

import inspect
from pathlib import Path

import attrs
import click
import pytest
from click.testing import CliRunner

import sis_core
from sis_core.cli.main import group
from sis_core.errors import SisError
from sis_core.loading.options import LoadOptions
from sis_core.registry import Registry
from sis_core.texts.chain_text import sampler_options

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


def test_help_begins_with_what_is_common() -> None:
    shown = CliRunner().invoke(group, ["generate", "--help"]).output
    headings = [line for line in shown.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert headings == [
        "Options:", "Choosing tokens:", "The text:", "Loading the model:", "Options of samplers, see `sis samplers`:"
    ]  # fmt: skip
    assert shown.index("--max-tokens") < shown.index("Choosing tokens:") < shown.index("--pack")
    assert len(shown.splitlines()) < 75


def test_what_samplers_options_say_is_in_the_list_of_samplers() -> None:
    options = [option for option in sampler_options(Registry.load()) if option.sampler.name in ("top-p", "penalties")]
    shown = CliRunner().invoke(group, ["samplers", "penalties", "top-p"]).output
    helped = CliRunner().invoke(group, ["generate", "--help"]).output
    for option in options:
        assert f"{option.option}\t{option.field.default}\t{option.field.metadata['help']}" in shown
        assert option.option in helped
    assert "mirostat" not in shown


def test_the_options_of_samplers_are_asked_for_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Though click and the file of defaults want them several times."""
    config = tmp_path / "config.toml"
    config.write_text("[generate]\ntop-k = 3\n")
    monkeypatch.setenv("SIS_CONFIG", str(config))
    asked = []
    monkeypatch.setattr("sis_core.cli.sampling.sampler_options", lambda r: asked.append(r) or sampler_options(r))
    done = CliRunner().invoke(group, ["generate", "Once", "--keep", "3"])  # refused after the line was read
    assert "--keep changes nothing" in done.output
    assert len(asked) == 1
