"""Tokens without a row in the embedding: a model goes without those that stand for no text, and with no others."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from family_suite import installed

from sis_core import load
from sis_core.cli.main import group
from sis_core.errors import BackendError, ModelError, TokenizerError
from sis_core.gguf_file import GGUFFile
from sis_core.loading.rowless import count_rowless
from sis_core.loading.vocabulary import build_tokenizer
from sis_core.testing.models import write_model

SOFT = "<image_soft_token>"  # of Gemma 3
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4
N_ROWS = 260
PREFIX = "tokenizer.ggml."


def write_longer(path: Path, *types: int, **values: Any) -> Path:
    """The usual tiny model with a token more for each of ``types`` than its embedding has rows."""
    with GGUFFile.open(write_model(path)) as file:
        usual = {key: list(file.metadata[PREFIX + key]) for key in ("tokens", "token_type")}  # type: ignore[arg-type]
    values |= {"tokens": usual["tokens"] + [SOFT, "<more>"][: len(types)], "token_type": [*usual["token_type"], *types]}
    return write_model(path, {PREFIX + key: value for key, value in values.items()})


@pytest.mark.parametrize("types", [(CONTROL,), (USER_DEFINED, CONTROL)])
def test_texts_go_without_them(types: tuple[int, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    usual = write_model(tmp_path / "usual.gguf")
    longer = write_longer(tmp_path / "longer.gguf", *types)
    text = f"the {SOFT} the"
    with (
        load(usual, backend="numpy") as wanted,
        caplog.at_level(logging.WARNING),
        load(longer, backend="numpy") as found,
    ):
        assert f"the last {len(types)} tokens have no row in token_embd.weight: texts go without" in caplog.text
        ids = found.tokenizer.encode(text, parse_special=True)
        assert ids == wanted.tokenizer.encode(text, parse_special=True)
        assert found.tokenizer.decode(ids) == text
        assert found.tokenizer.n_vocab == found.config.n_vocab == N_ROWS
        np.testing.assert_array_equal(found.logits(text), wanted.logits(text))
        with (
            found.session() as session,
            pytest.raises(BackendError, match=r"token 260 is outside the vocabulary of 260"),
        ):
            session.step({0: [1, N_ROWS]})
        with pytest.raises(TokenizerError, match=r"260"):
            found.tokenizer.decode([N_ROWS])


def test_a_token_that_texts_may_need_is_refused(tmp_path: Path) -> None:
    for types in ((NORMAL,), (CONTROL, NORMAL)):
        with pytest.raises(ModelError, match=rf"has {N_ROWS + len(types)} tokens, but token_embd\.weight has 260 rows"):
            load(write_longer(tmp_path / "normal.gguf", *types))
    path = write_longer(tmp_path / "end.gguf", CONTROL, eos_token_id=N_ROWS)
    with (
        GGUFFile.open(path) as file,
        pytest.raises(TokenizerError, match=r"the id 260 is outside the vocabulary of 260"),
    ):
        build_tokenizer(file, installed())


def test_what_a_file_must_say_of_them() -> None:
    tokens = ["a", "b", "c"]
    assert count_rowless({}, 2) == 0
    assert count_rowless({PREFIX + "tokens": tokens}, 3) == 0
    assert count_rowless({PREFIX + "tokens": tokens}, 4) is None  # a row without a token
    assert count_rowless({PREFIX + "tokens": tokens}, 2) is None  # of no type
    assert count_rowless({PREFIX + "tokens": tokens, PREFIX + "token_type": [1, 3]}, 2) is None
    assert count_rowless({PREFIX + "tokens": tokens, PREFIX + "token_type": [1, 1, 3]}, 2) == 1


def test_inspect_says_so(tmp_path: Path) -> None:
    path = write_longer(tmp_path / "longer.gguf", CONTROL)
    shown = CliRunner().invoke(group, ["inspect", str(path)]).stdout
    assert "ignored: the last 1 of its tokens, which have no row in the embedding\n" in shown
    assert json.loads(CliRunner().invoke(group, ["inspect", "--json", str(path)]).stdout)["ignored_tokens"] == 1
    usual = write_model(tmp_path / "usual.gguf")
    assert json.loads(CliRunner().invoke(group, ["inspect", "--json", str(usual)]).stdout)["ignored_tokens"] == 0
