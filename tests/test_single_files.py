"""Plugins in single files, named by --plugin."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from workbench import sis

from sis_core.cli.main import group
from sis_core.errors import PluginError


def test_a_single_file_plugin_on_the_command_line(tmp_path: Path, random_model: Path) -> None:
    path = tmp_path / "last.py"
    path.write_text(
        "import numpy as np\nfrom attrs import frozen\nfrom sis_core import hookimpl\n"
        "from sis_core.sampler import Sampler, SamplerState\n"
        "class State(SamplerState):\n    def apply(self, logits):\n"
        "        logits[:] = -np.inf\n        logits[97] = 0\n"
        "@frozen\nclass OnlyA(Sampler):\n    '''Always says a.'''\n    name = 'only-a'\n"
        "    def start(self, context):\n        return State()\n"
        "@hookimpl\ndef sis_register_samplers():\n    return [OnlyA]\n"
    )
    done = sis("generate", "-m", random_model, "-n", 5, "--plugin", path, "--sampler", "only-a", "B", "--no-echo")
    assert done.stdout == "aaaaa\n", done.stderr


SHY = """
from sis_core import Filter, hookimpl
class Shy(Filter):
    name = "shy"
    def apply(self, logits):
        pass
@hookimpl
def sis_register_samplers():
    return [Shy]
"""
SIGN = """
from sis_core import hookimpl
from sis_core.quant import BlockFormat
class Sign(BlockFormat):
    name, block_size, type_size = "SIGN", 32, 6
    def dequantize_blocks(self, blocks):
        raise NotImplementedError
@hookimpl
def sis_register_quant_formats():
    return [Sign()]
"""
UNREGISTERED = {  # what an author may get wrong: the text, the change, and the reason that belongs on the first error
    "hook name": (SHY, ("register_samplers", "register_sampler"), "there is no such hook (did you mean 'sis_register_"),
    "instance": (SHY, ("[Shy]", "[Shy()]"), "not a subclass of Sampler: return the class Shy itself"),
    "no mark": (SHY, ("@hookimpl", ""), "sis_register_samplers is not marked with @sis_core.hookimpl"),
    "no name": (SHY, ('name = "shy"', ""), "Shy'> without a name"),
    "class": (SIGN, ("[Sign()]", "[Sign]"), "not an instance of QuantFormat: return Sign()"),
    "no list": (SIGN, ("[Sign()]", "Sign()"), "TypeError: 'Sign' object is not iterable"),
}


@pytest.mark.parametrize("fault", UNREGISTERED)
def test_a_file_that_does_not_register_says_why_on_the_first_error(fault: str, tmp_path: Path) -> None:
    right, change, reason = UNREGISTERED[fault]
    path = tmp_path / "mine.py"
    path.write_text(right.replace(*change))
    named = {
        "generate": ["--sampler", "shy", "Once"],
        "quantize": ["tiny", str(tmp_path / "out.gguf"), "--to", "sign"],
        "samplers": [],
        "mycommand": [],
    }
    for command, args in named.items():
        with pytest.raises(PluginError) as raised:
            group.main(["--plugin", str(path), command, *args], standalone_mode=False)
        assert str(raised.value).startswith(f"--plugin {path}: "), command
        assert reason in str(raised.value), command
    listed = CliRunner().invoke(group, ["plugins", "--plugin", str(path), "--json"])
    row = next(row for row in map(json.loads, listed.stdout.splitlines()) if row["name"] == "mine")
    assert reason in row["problem"]
    assert str(listed.exception).startswith("plugins: mine cannot be used. The list says why")  # as `pip check`


def test_a_single_file_brings_commands(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "import click\nfrom sis_core import hookimpl\n"
        "@click.command('greet')\n@click.argument('name')\ndef greet(name):\n    click.echo(f'hello {name}')\n"
        "@hookimpl\ndef sis_register_commands():\n    return [greet]\n"
    )
    run = CliRunner().invoke
    assert run(group, ["greet", "you", "--plugin", str(path)]).stdout == "hello you\n"
    assert f"greet            (from {path})" in run(group, ["--help", "--plugin", str(path)], terminal_width=200).stdout
    assert "no such command 'greet'" in run(group, ["greet", "you"]).stderr
    assert "(did you mean 'greet'?)" in run(group, ["gret", "--plugin", str(path)]).stderr


def test_preferences_reach_a_plugins_command(tmp_path: Path) -> None:
    for name in ("ca", "cb"):
        (tmp_path / f"{name}.py").write_text(
            "import click\nfrom sis_core import hookimpl\n"
            f"@click.command('hello')\n@click.pass_context\ndef hello(ctx):\n    print('{name}')\n    ctx.exit(5)\n"
            "@hookimpl\ndef sis_register_commands():\n    return [hello]\n"
        )
        info = tmp_path / f"{name}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        (info / "entry_points.txt").write_text(f"[sis]\n{name} = {name}\n[sis.commands]\nhello = {name}\n")
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = sis("hello", "--prefer", "hello=cb", env=env)
    assert (done.stdout, done.returncode) == ("cb\n", 5)
    assert "claimed by two plugins: ca and cb" in sis("hello", env=env).stderr
    assert "hello" in sis("--help", env=env).stdout
