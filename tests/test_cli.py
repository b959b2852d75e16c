"""The program as a user meets it: in its own process where exit codes, signals and pipes matter."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from tiny_models import metadata, tensors, write_model
from workbench import SIS, inside, sis

from sis_core.cli.main import COMMANDS, group, hoist
from sis_core.errors import TokenizerError, package_for
from sis_core.registry import Registry


def test_help_imports_neither_numpy_nor_a_plugin() -> None:
    code = (
        "import sys\nfrom sis_core.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as stop:\n    assert stop.code == 0\n"
        "print([m for m in sys.modules if m == 'numpy' or (m.startswith('sis_') and not m.startswith('sis_core'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert all(name in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help(name: str) -> None:
    done = inside(name, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Usage: sis {name}")
    assert "--plugin FILE" in done.stdout
    assert "--prefer NAME=PLUGIN" in done.stdout


def test_version() -> None:
    assert sis("--version").stdout.startswith("sis 0.")


def test_a_misspelt_command() -> None:
    done = sis("generat")
    assert done.returncode == 2
    assert "no such command 'generat' (did you mean 'generate'?)" in done.stderr


def test_the_catalogue_names_the_owners_of_commands() -> None:
    for point in entry_points(group="sis.commands"):
        assert package_for("commands", point.name) == (point.dist.name if point.dist else None)


def test_a_command_of_a_missing_plugin_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **which: ())
    done = CliRunner().invoke(group, ["chat"])
    assert done.exit_code == 2
    assert "chat comes with `pip install sis-chat`" in done.output


def test_global_options_may_stand_anywhere() -> None:
    assert hoist(["generate", "-v", "x", "--plugin", "a.py", "--prefer=A=b", "--", "-v"]) == [
        "-v", "--plugin", "a.py", "--prefer=A=b", "generate", "x", "--", "-v",
    ]  # fmt: skip


def test_generate_streams_plain_text(random_model: Path) -> None:
    args = ("generate", "-m", random_model, "--sampler", "greedy", "-n", 12, "--ignore-end", "Once")
    first, second = sis(*args), sis(*args, "--no-echo")
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("Once")
    assert "\x1b" not in first.stdout
    assert first.stdout == "Once" + second.stdout


def test_same_seed_same_text(random_model: Path) -> None:
    args = ("generate", "-m", random_model, "--sampler", "top-p", "--temperature", 0.8, "--seed", 7, "-n", 20, "Once")
    assert sis(*args).stdout == sis(*args).stdout != ""


def test_generate_json(random_model: Path) -> None:
    done = sis(
        "generate", "-m", random_model, "-n", 4, "--json", "--logprobs", 3, "--ignore-end", "--seed", 1, "Once", "The"
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == 8
    assert {line["sequence"] for line in lines} == {0, 1}
    assert sorted(line["sequence"] for line in lines if line.get("finish_reason") == "length") == [0, 1]
    assert all(len(line["top"]) == 3 and line["logprob"] <= 0 for line in lines)


def test_one_prompt_that_fails_leaves_the_others(random_model: Path) -> None:
    done = sis("generate", "-m", random_model, "-n", 3, "--seed", 1, "--ignore-end", "Once", "a" * 200, "The cat")
    assert done.returncode == 1
    alone = [sis("generate", "-m", random_model, "-n", 3, "--seed", 1, "--ignore-end", x) for x in ("Once", "The cat")]
    assert all(one.stdout in done.stdout for one in alone)
    assert "sis: sequence 1: a text of 201 tokens does not fit into the context of 128" in done.stderr


def test_generate_several_prompts(random_model: Path) -> None:
    done = sis("generate", "-m", random_model, "-n", 3, "--seed", 1, "Once", "The cat")
    lines = done.stdout.splitlines()
    assert any(line.startswith("[1] Once") for line in lines)
    assert any(line.startswith("[2] The cat") for line in lines)
    assert all(line.startswith(("[1] ", "[2] ")) for line in lines)
    assert done.stderr.splitlines() == [f"sis: [{i}] ended after 3 tokens (-n)" for i in (1, 2)]


def test_the_prompt_may_come_from_standard_input_or_a_file(random_model: Path, tmp_path: Path) -> None:
    args = ("generate", "-m", random_model, "-n", 5, "--sampler", "greedy")
    (tmp_path / "prompt.txt").write_text("Once upon\n")
    expected = sis(*args, "Once upon").stdout
    assert sis(*args, input="Once upon\n").stdout == expected
    assert sis(*args, "-f", tmp_path / "prompt.txt").stdout == expected
    missing = sis(*args, "-f", tmp_path / "absent.txt")
    assert (missing.returncode, missing.stderr.count("\n")) == (1, 1)
    assert "absent.txt: cannot be read" in missing.stderr


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (
            ["--sampler", "topp"],
            1,
            "no installed plugin brings the sampler 'topp' (did you mean 'top-p'?). Installed are: ",
        ),
        (["--temperature", "-1"], 1, "temperature"),
        (["--temperature", "hot"], 2, "'hot' is not a valid float"),
        (["--samplers", "top-k=abc"], 1, "top-k"),
        (["--backend", "warp"], 1, "no installed plugin brings the backend 'warp'"),
        (["--ctx", "4"], 1, "does not fit into the context of 4"),
        (["--kv-type", "q3"], 1, "no kv_type 'q3'"),
        (["--plugin", "absent.py"], 1, "--plugin absent.py: no such file"),
        (["--prefer", "x"], 2, "write it as NAME=PLUGIN"),
        (["--stop", ""], 1, "empty"),
    ],
)
def test_bad_options_are_one_clear_line(random_model: Path, args: list[str], code: int, message: str) -> None:
    done = inside("generate", "-m", random_model, "-n", 2, "Once upon a time", *args)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert code == 2 or done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", [["generate", "-m"], ["inspect"], ["tokenize", "-m"], ["doctor", "-m"]])
def test_a_bad_file_is_one_line_and_exit_code_1(tmp_path: Path, command: list[str]) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF\x03\0\0\0")
    done = inside(*command, bad, *(["hello"] if command[0] in ("generate", "tokenize") else []))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "bad.gguf" in done.stderr


def test_inspect_shows_what_it_does_not_know(tmp_path: Path) -> None:
    from sis_core.gguf_file.writer import GGUFWriter

    path = tmp_path / "odd.gguf"
    values = {"general.architecture": "warp\x1b[31m", "tokenizer.ggml.model": "runes", "warp.flux": [1, 2, 3] * 10}
    writer = GGUFWriter(path, values)
    writer.add_tensor("hull", (4, 32), "HALF8", [bytes(64)], n_bytes=64, package="sis-half8")
    writer.write()
    done = inside("inspect", path)
    assert done.returncode == 0, done.stderr
    for text in (
        "warp.flux",
        "[1, 2, 3, 1, 2, 3, 1, 2, …] (30)",
        "hull",
        "4 × 32",
        "HALF8",
        "'sis-half8' brings it",
        "its text will be refused: no installed plugin brings the tokenizer 'runes'",
    ):
        assert text in done.stdout
    assert "\x1b" not in done.stdout
    summary = json.loads(inside("inspect", "--json", path).stdout)
    assert summary["tensors"] == [{"name": "hull", "shape": [4, 32], "type": "HALF8", "bytes": 64}]


def test_inspect_names_a_pre_tokenizer_that_a_load_refuses(random_model: Path, tmp_path: Path) -> None:
    from sis_core.gguf_file import GGUFFile
    from sis_core.gguf_file.writer import GGUFWriter
    from sis_core.loading.vocabulary import build_tokenizer, refusal

    registry = Registry.load()
    with GGUFFile.open(random_model) as file:
        assert refusal(file.metadata, registry) is None
        values = dict(file.metadata)
    for pre in ("qwen0", 3, ["default", "qwen2"]):
        path = tmp_path / "cut.gguf"
        GGUFWriter(path, values | {"tokenizer.ggml.pre": pre}).write()
        with GGUFFile.open(path) as file:
            assert "does not know the tokenizer.ggml.pre" in str(refusal(file.metadata, registry))
            with pytest.raises(TokenizerError, match=r"tokenizer\.ggml\.pre"):
                build_tokenizer(file, registry)
    GGUFWriter(path, values | {"tokenizer.ggml.pre": "qwen0"}).write()
    says = "the plugin tokenizers does not know the tokenizer.ggml.pre 'qwen0', which says how text is cut into words"
    assert f"its text will be refused: {says}\n" in inside("inspect", path).stdout
    assert json.loads(inside("inspect", "--json", path).stdout)["text_refused"] == says


def test_inspect_says_why_a_model_will_be_refused(tmp_path: Path) -> None:
    good = write_model(tmp_path / "good.gguf")
    assert json.loads(inside("inspect", "--json", good).stdout)["refused"] is None
    unknown = write_model(tmp_path / "unknown.gguf", metadata() | {"general.architecture": "llama9"})
    assert "it will be refused: " in inside("inspect", unknown).stdout
    assert "llama9" in json.loads(inside("inspect", "--json", unknown).stdout)["refused"]
    weights = tensors()
    del weights["blk.0.ffn_up.weight"]
    weights["v.patch_embd.weight"] = np.ones((4, 4), np.float32)
    found = inside("inspect", write_model(tmp_path / "tower.gguf", metadata(), weights)).stdout
    assert "ignored: 1 tensors that see or hear\n" in found
    assert "it will be refused: tensor blk.0.ffn_up.weight (64, 32) is missing\n" in found


def test_tokenize(random_model: Path) -> None:
    assert inside("tokenize", "-m", random_model, "--ids", "the").stdout == "256 116 258\n"
    assert inside("tokenize", "-m", random_model, "--ids", "--no-special", "the").stdout == "116 258\n"
    assert inside("tokenize", "-m", random_model, "--count", "the").stdout == "3\n"
    assert inside("tokenize", "-m", random_model, "-d", "116 258").stdout == "the\n"
    assert json.loads(inside("tokenize", "-m", random_model, "--json", "the").stdout)["tokens"] == [256, 116, 258]
    done = inside("tokenize", "-m", random_model, "-d", "one")
    assert (done.returncode, done.stderr) == (1, "sis: --detokenize: 'one' is not a token id. Give whole numbers\n")


def test_plugins_and_samplers_lists() -> None:
    done = inside("plugins", "--json")
    assert done.returncode == 0
    plugins = [json.loads(line) for line in done.stdout.splitlines()]
    assert "llama" in next(p for p in plugins if p["name"] == "llama")["offers"]["architectures"]
    samplers = [json.loads(line)["name"] for line in inside("samplers", "--json").stdout.splitlines()]
    assert {"greedy", "top-k", "top-p", "min-p", "temperature", "penalties"} <= set(samplers)
    assert inside("samplers").stdout.startswith("sampler\tplugin\toptions")


def test_doctor(random_model: Path) -> None:
    done = sis("doctor", "-m", random_model, "--backend", "numpy", "--check-tensors")
    for text in (
        "plugins work",
        "numpy\t1\tready",
        "stub\t0\tonly when named",
        "layers 0 to 1: numpy layer",
        "F32\t15\t0.1 MiB\tdecoded in each step by Python (numpy)\t0.1 MiB",
        "every weight is finite",
        "chat: random.gguf: the file has no chat template",
    ):
        assert text in done.stdout, done.stderr


def test_doctor_finds_the_weight_that_is_no_number(tmp_path: Path) -> None:
    weights = tensors()
    weights["output.weight"][3, 5] = np.nan
    path = write_model(tmp_path / "broken.gguf", weights=weights)
    runner = CliRunner()
    for flags, says in (([], "`--check-tensors` looks for a weight"), (["--check-tensors"], "")):
        done = runner.invoke(group, ["doctor", "-m", str(path), "--backend", "numpy", *flags])
        assert "one step: the model gave a number that is not finite" in done.output
        assert says in done.output
        assert done.exit_code == 1
    assert "output.weight" in str(done.exception)


def test_ctrl_c_ends_cleanly(random_model: Path) -> None:
    args = [*SIS, "generate", "-m", str(random_model), "--context", "shift", "-n", "-1", "--ignore-end", "Once"]
    running = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    assert running.stdout is not None
    running.stdout.read(8)
    os.kill(running.pid, signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 130, errors
    assert b"Traceback" not in errors


def test_ctrl_c_while_starting_ends_cleanly() -> None:
    code = (
        "import sys\nclass Interrupted:\n    def find_spec(self, name, *_):\n"
        "        if name == 'click': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\nfrom sis_core.cli import main\nmain(['--version'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "\n")


def test_a_reader_that_leaves_is_no_error(random_model: Path) -> None:
    args = [*SIS, "generate", "-m", str(random_model), "--context", "shift", "-n", "-1", "--ignore-end", "Once"]
    running = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert running.stdout is not None
    running.stdout.read(8)
    running.stdout.close()
    deadline = time.monotonic() + 60
    while running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert running.stderr is not None
    errors = running.stderr.read()
    running.stderr.close()
    assert running.returncode is not None
    assert b"Traceback" not in errors
    assert b"BrokenPipe" not in errors


def test_doctor_says_by_its_exit_code_that_something_is_broken(tmp_path: Path) -> None:
    path = tmp_path / "hollow.py"
    path.write_text("nothing = 1\n")
    done = sis("doctor", "--plugin", path)
    assert (done.returncode, "hollow: has none of the hooks of sis" in done.stdout) == (1, True)


def test_bytes_and_letters_that_do_not_fit_a_terminal(random_model: Path) -> None:
    env = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    args = ("generate", "-m", random_model, "-n", 30, "--seed", 1, "--temperature", 5, "--json", "Once")
    done = sis(*args, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    bad = subprocess.run([*SIS, "generate", "-m", str(random_model)], input=b"ab\xff", capture_output=True, check=False)
    assert bad.stderr == b"sis: standard input: is not UTF-8: invalid start byte at byte 2\n"


def test_names_from_a_file_cannot_paint_the_terminal(tmp_path: Path) -> None:
    from sis_core.gguf_file.writer import GGUFWriter

    path = tmp_path / "painted.gguf"
    GGUFWriter(path, {"general.architecture": "x", "a\x1b[31m\nb\tc": 1}).write()
    out = sis("inspect", path).stdout
    assert "\x1b" not in out
    assert "a\\x1b[31m\\nb\\tc\tuint32\t1" in out


def test_a_prompt_and_a_file_contradict_each_other(random_model: Path) -> None:
    assert "give a prompt or --file, not both" in inside("generate", "-m", random_model, "-f", "x.txt", "Once").stderr


@pytest.mark.parametrize("name", ["~nosuchuser/x", "x" * 300])
def test_odd_paths_are_errors_not_tracebacks(name: str) -> None:
    done = sis("generate", "-m", name, "Once")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)


def test_verbosity_may_be_excessive() -> None:
    assert sis("plugins", "-vvv").returncode == 0


def model_bytes(path: Path) -> Path:
    path.write_bytes(b"GGUF and more")
    return path


@pytest.mark.parametrize("command", ["generate", "tokenize"])
def test_a_model_where_a_text_is_expected(command: str, tmp_path: Path) -> None:
    for name in ("model.gguf", str(model_bytes(tmp_path / "weights.bin"))):
        done = inside(command, name)
        assert done.returncode == 2
        assert f"{name} is a model, not a text: sis {command} -m {name}" in done.stderr


NEEDS_A_MODEL = ["generate", "tokenize", "inspect", "doctor", "bench", "profile", "eval", "imatrix"]


@pytest.mark.parametrize("command", NEEDS_A_MODEL)
def test_an_empty_model_name_is_an_error(command: str, tmp_path: Path) -> None:
    more = {"generate": ["x"], "tokenize": ["x"], "imatrix": ["--text", "x", "-o", str(tmp_path / "o")]}
    done = inside(command, "-m", "", *more.get(command, []))
    assert (done.returncode, done.stderr) == (1, "sis: -m: the model's name is empty. Name a file, or leave -m out\n")


def test_the_model_with_and_without_m(random_model: Path) -> None:
    assert inside("inspect", random_model).stdout == inside("inspect", "-m", random_model).stdout != ""
    both = inside("doctor", random_model, "-m", random_model)
    assert (both.returncode, "two models are named" in both.stderr) == (2, True)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--logprobs", "2"], "--logprobs shows nothing without --json"),
        (["--keep", "2"], "--keep changes nothing without --context shift"),
    ],
)
def test_options_without_effect_are_refused(args: list[str], message: str, random_model: Path) -> None:
    done = sis("generate", "-m", random_model, *args, "Once")
    assert (done.returncode, message in done.stderr) == (2, True)


def test_standard_input_beside_a_prompt(random_model: Path) -> None:
    args = ("generate", "-m", random_model, "--sampler", "greedy", "-n", 3)
    refused = sis(*args, "Once", input="upon")
    assert (refused.returncode, "text on standard input too" in refused.stderr) == (2, True)
    assert sis(*args, "-", input="\ufeffOnce").stdout == sis(*args, "Once").stdout


def test_a_stop_reads_escapes(random_model: Path) -> None:
    from sis_core.cli.generate import unescaped

    assert unescaped(r"a\n\tb\x41\u00e4\\n\q") == "a\n\tbA\xe4\\n\\q"


def test_json_is_utf8_whatever_the_locale(random_model: Path) -> None:
    args = [*SIS, "tokenize", "-m", str(random_model), "--json", "a b"]
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(args, capture_output=True, check=True, env=environment)
    assert json.loads(done.stdout.decode("utf-8"))["pieces"][-2:] == ["\u0120", "b"]


@pytest.mark.parametrize(("redirect", "code"), [(">/dev/full", 1), (">&-", 0)])
def test_an_output_that_is_full_or_closed(redirect: str, code: int, random_model: Path) -> None:
    command = f"{sys.executable} -m sis_core generate -m {random_model} -n 4 --seed 1 Once {redirect}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert "No space left" in done.stderr or code == 0


def test_outputs_are_checked_before_the_work(random_model: Path, tmp_path: Path) -> None:
    missing = tmp_path / "nowhere" / "out"
    (tmp_path / "text").write_text("he " * 100)
    for command in (
        ["imatrix", "-m", random_model, "--text", tmp_path / "text", "-o", missing],
        ["profile", "-m", random_model, "--trace", missing],
    ):
        done = sis(*command)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert f"{missing}: the folder {missing.parent} does not exist" in done.stderr


def test_messages_from_outside_cannot_paint_the_terminal(tmp_path: Path) -> None:
    done = sis("generate", "-m", f"{tmp_path}/no\x1b[31m\nERROR: all lost", "x")
    assert done.returncode == 1
    assert "\x1b" not in done.stderr
    assert done.stderr.count("\n") == 1
    assert r"no\x1b[31m\nERROR: all lost" in done.stderr


def test_generated_text_cannot_paint_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sis_core.cli.streams import write_text

    write_text("a\x1b[31mb\n")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    write_text("a\x1b[31mb\n\tc\r")
    assert capsys.readouterr().out == "a\x1b[31mb\n" + "a\\x1b[31mb\n\tc\\r"


def test_sis_alone_says_what_is_here() -> None:
    done = sis()
    assert (done.returncode, done.stderr) == (0, "")
    assert "tiny  (" in done.stdout
    assert 'sis generate "Once upon a time"' in done.stdout


def test_defaults_come_from_the_environment_and_a_file(random_model: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('sampler = "greedy"\nthreads = 1\n[generate]\nmax-tokens = 3\n')
    environment = {**os.environ, "SIS_MODEL": str(random_model), "SIS_CONFIG": str(config)}
    short = sis("generate", "Once", env=environment)
    assert short.stderr == "sis: ended after 3 tokens (-n)\n"
    expected = sis("generate", "-m", random_model, "--sampler", "greedy", "-n", 3, "Once")
    assert short.stdout == expected.stdout
    assert "after 2 tokens" in sis("generate", "Once", "-n", 2, env=environment).stderr
    assert sis("samplers", env=environment).returncode == 0  # it has neither sampler nor threads: others do
    config.write_text("[generate]\nmax-token = 3\n")
    wrong = sis("generate", "Once", env=environment)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (1, 1)
    assert "config.toml: [generate]: sis generate has no option --max-token" in wrong.stderr
    for text, what in (
        ("[genrate]\nmax-tokens = 3\n", "there is no command 'genrate' (did you mean 'generate'?)"),
        ("modle = 'x'\n", "no command has an option --modle (did you mean 'model'?)"),
    ):
        config.write_text(text)
        wrong = sis("samplers", env=environment)
        assert (wrong.returncode, what in wrong.stderr) == (1, True), wrong.stderr
    config.write_text("not toml")
    assert "cannot be read" in sis("generate", "Once", env=environment).stderr
    config.unlink()
    gone = sis("generate", "Once", env=environment)
    assert (gone.returncode, gone.stderr) == (
        1,
        f"sis: SIS_CONFIG={config}: there is no such file. Name a file, or unset it\n",
    )
