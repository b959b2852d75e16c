"""What must be refused, row by row, and the test that holds each; rows that had none have theirs here.

The container and models have tables with a row for each case, `gguf_cases` and `test_model_refusals`, which count them.
The rows of vocabularies and texts, of the command line and files, of plugins, and of terminals and borders stand in
many places, which `ROWS` names.
"""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import small_vocabularies
from sis_tokenizers.bpe import build_bpe
from workbench import SIS

from sis_core.cli.streams import OneLine
from sis_core.errors import SisError, TokenizerError
from sis_core.registry import Registry
from sis_core.texts.language_model import load

ROOT = Path(__file__).parent.parent
HERE, TEXTS = "tests/test_refusal_rows.py", "plugins/tokenizers/tests/test_refusals.py"
ROWS = {
    # vocabularies and texts
    "no tokens": f"{TEXTS}::tokens missing",
    "an empty list of tokens": f"{TEXTS}::tokens empty",
    "tokens of another type": f"{TEXTS}::tokens of the wrong type",
    "too few scores": f"{TEXTS}::scores length",
    "too few token types": f"{TEXTS}::token_type length",
    "a token type that is none": f"{TEXTS}::token_type out of range",
    "merges of another type": f"{HERE}::test_merges_of_another_type",
    "no merges": f"{TEXTS}::merges missing",
    "a merge without two parts": f"{TEXTS}::merge without two parts",
    "a token twice": f"{TEXTS}::duplicate tokens",
    "bos beyond the vocabulary": f"{TEXTS}::bos beyond the vocabulary",
    "padding beyond the vocabulary": f"{TEXTS}::pad beyond",
    "an unknown tokenizer": f"{TEXTS}::test_unknown_tokenizer_model",
    "an unknown pre-tokenizer": f"{TEXTS}::unknown pre",
    "neither bytes nor unknown": f"{TEXTS}::SPM with neither byte tokens nor an unknown one",
    "token bytes that are not UTF-8": f"{TEXTS}::test_token_bytes_that_are_not_utf_8",
    "a very long token": f"{TEXTS}::token longer than 64 KiB",
    "decoding what is no id": f"{TEXTS}::test_decode",
    "a lone surrogate": f"{TEXTS}::test_lone_surrogate_in_prompt",
    "NUL in a prompt": f"{TEXTS}::test_nul_in_prompt_works",
    "a prompt over the context": f"{TEXTS}::test_prompt_over_n_ctx",
    "a prompt over the cap of bytes": f"{TEXTS}::test_prompt_over_byte_cap",
    "names of control tokens from users": f"{TEXTS}::test_control_token_text_from_users",
    "a pattern that backtracks": f"{TEXTS}::test_a_pattern_that_backtracks_is_an_error_and_no_panic",
    "an end inside a character": f"{TEXTS}::test_stream_ending_inside_a_character",
    # the command line, files and downloads
    "no such path": "tests/test_gguf_file.py::test_no_such_file",
    "a directory": "tests/test_gguf_file.py::test_directory",
    "not readable": "tests/test_gguf_file.py::test_unreadable",
    "an empty file": "tests/gguf_cases.py::X_EMPTY_FILE",
    "a FIFO": "tests/test_gguf_file.py::test_fifo",
    "a device": "tests/test_gguf_file.py::test_device",
    "a pointer of Git LFS": "tests/gguf_cases.py::X_GIT_LFS_POINTER",
    "an HTML page": "tests/gguf_cases.py::X_HTML_AS_GGUF",
    "a lone .safetensors file": "plugins/hub/tests/test_checkpoint.py::test_a_lone_safetensors_file",
    "GGML": "tests/gguf_cases.py::X_GGML_OLD_MAGIC",
    "GGJT": "tests/gguf_cases.py::X_GGJT_MAGIC",
    "a pickle": "tests/test_gguf_file.py::test_pickles_are_never_loaded",
    "a partial download": "plugins/hub/tests/test_hub.py::test_a_partial_download_is_never_a_model",
    "another hash": "plugins/hub/tests/test_hub.py::test_hash_mismatch",
    "a repository without models": "plugins/hub/tests/test_hub.py::test_a_repository_without_models",
    "a name that leads out": "plugins/hub/tests/test_hub.py::test_a_file_name_that_leads_out_of_the_folder",
    "a full disk": "tests/test_quantize_refusals.py::test_a_full_disk_leaves_nothing",
    "an unknown sampler": "tests/test_chain_text.py::test_an_unknown_sampler_lists_what_is_installed",
    # plugins
    "import error": "tests/test_registry.py::test_a_broken_installed_plugin_changes_nothing_but_one_line",
    "exception in a hook": "tests/test_discovery.py::raises",
    "another version of the API": "tests/test_registry.py::test_another_api_version_is_refused_by_name",
    "two claim a type id": "tests/test_registry.py::test_two_plugins_claim_one_type_id",
    "two claim a name": "tests/test_registry.py::test_two_plugins_claim_one_name",
    "a codec's wrong shape": "tests/test_formats.py::shape",
    "a codec's wrong dtype": "tests/test_quant.py::dtype",
    "infinity from finite input": "tests/test_formats.py::infinite",
    "a sampler's id out of range": "tests/test_chain.py::test_a_token_out_of_range_is_impossible",
    "a sampler's NaN": "tests/test_chain.py::test_a_nan_names_the_sampler",
    "no native library": "tests/test_native.py::test_a_missing_library_is_one_line",
    "a library for another machine": "tests/test_native.py::test_a_file_that_is_no_library",
    "too old a processor": "plugins/x86/tests/test_x86.py::test_an_old_processor_leaves_the_backend_idle",
    "another ABI": "tests/test_native.py::test_a_library_of_somebody_else",
    "weights are not written": "tests/test_gguf_file.py::test_nothing_can_be_changed",
    # terminals and borders
    "escapes in messages": "tests/test_cli.py::test_messages_from_outside_cannot_paint_the_terminal",
    "escapes in names": "tests/test_cli.py::test_names_from_a_file_cannot_paint_the_terminal",
    "escapes in generated text": "tests/test_cli.py::test_generated_text_cannot_paint_a_terminal",
    "escapes in logs": f"{HERE}::test_a_log_line_is_one_line",
    "integers that C cannot hold": "tests/test_native.py::test_every_field_takes_what_fits_and_nothing_else",
    "infinite logits": "tests/test_borders.py::test_infinite_logits_are_refused",
    "a file rewritten in place": "tests/test_gguf_file.py::test_file_is_rewritten",
    "closed or full output": "tests/test_cli.py::test_an_output_that_is_full_or_closed",
    "closed input": f"{HERE}::test_a_closed_input",
    "no file descriptors left": f"{HERE}::test_no_file_descriptors_left",
    "a limit of address space": "tests/test_borders.py::test_a_limit_of_address_space_is_an_error_or_read_in_place",
    "close from a signal handler": "tests/test_borders.py::test_close_from_a_signal_handler",
    "close in a forked child": "tests/test_borders.py::test_close_in_a_forked_child",
    "an interrupt before the note": "tests/test_session_behind.py::test_an_interrupt_between_a_step_and_its_note",
    "an empty name of a model": "tests/test_cli.py::test_an_empty_model_name_is_an_error",
    "a model as a prompt": "tests/test_cli.py::is a model, not a text",
    "a folder that is not there": "tests/test_cli.py::test_outputs_are_checked_before_the_work",
    "options without effect": "tests/test_cli.py::test_options_without_effect_are_refused",
}


@pytest.mark.parametrize("row", ROWS)
def test_a_row_has_its_test(row: str) -> None:
    """A function of that name, or a case of a table that is called so."""
    path, name = ROWS[row].split("::")
    text = (ROOT / path).read_text("utf-8")
    assert f"def {name}(" in text or re.search(rf'"[^"\n]*{re.escape(name)}[^"\n]*"', text)


@pytest.mark.parametrize("merges", ["h e", [1, 2], 7])
def test_merges_of_another_type(merges: object) -> None:
    with pytest.raises(TokenizerError, match=r"^tokenizer\.ggml\.merges: "):
        build_bpe(small_vocabularies.byte_level(merges=merges))


def test_a_log_line_is_one_line() -> None:
    record = logging.LogRecord("x", logging.WARNING, "", 0, "%s", ("evil\x1b[31m\nERROR: all lost",), None)
    assert OneLine("%(levelname)s: %(message)s").format(record) == r"WARNING: evil\x1b[31m\nERROR: all lost"


@pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")
@pytest.mark.parametrize("command", ["generate", "tokenize", "chat"])
def test_a_closed_input(command: str, random_model: Path) -> None:
    line = f"{' '.join(SIS)} {command} -m {random_model} <&-"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    assert done.stderr.strip()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of descriptors")
def test_no_file_descriptors_left(random_model: Path) -> None:
    import resource

    registry = Registry.load()
    registry.load_all()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        with pytest.raises(SisError, match="Too many open files"):
            load(random_model, backend="stub", registry=registry)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
