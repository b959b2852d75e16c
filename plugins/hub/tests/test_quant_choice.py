"""Labels from file names, split files put together, and a choice that can be followed."""

from __future__ import annotations

import pytest
from sis_hub.quant_choice import best, candidates, label_of, named

from sis_core.errors import SourceError

GIB = 1 << 30
SIZES = {
    "README.md": 100,
    "m-Q4_K_M.gguf": 4 * GIB,
    "m-Q8_0.gguf": 8 * GIB,
    "m-F16.gguf": 15 * GIB,
    "m-UD-Q2_K_XL.gguf": 3 * GIB,
    "BF16/m-BF16-00001-of-00002.gguf": 10 * GIB,
    "BF16/m-BF16-00002-of-00002.gguf": 5 * GIB,
    "mmproj-F16.gguf": GIB,
    "half-Q6_K-00001-of-00002.gguf": GIB,
}


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("Model-1B-Q4_K_M.gguf", "Q4_K_M"),
        ("tinyllama-1.1b-chat-v1.0.Q4_0.gguf", "Q4_0"),
        ("qwen2.5-0.5b-instruct-q8_0.gguf", "Q8_0"),
        ("x-IQ4_XS.gguf", "IQ4_XS"),
        ("x-fp16.gguf", "F16"),
        ("x.BF16.gguf", "BF16"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"),
        ("Q5_K_S/model-00001-of-00002.gguf", "Q5_K_S"),
        ("UD-Q2_K_XL/x-UD-Q2_K_XL.gguf", "Q2_K_XL"),
        ("x-TQ1_0.gguf", "TQ1_0"),
        ("llama-7B-q4.gguf", ""),
        ("model.gguf", ""),
    ],
)
def test_labels(path: str, label: str) -> None:
    assert label_of(path) == label


def test_models_of_a_repository() -> None:
    found = {c.label: c for c in candidates(SIZES)}
    assert sorted(found) == ["BF16", "F16", "Q2_K_XL", "Q4_K_M", "Q8_0"]  # no projector, nothing of which a part lacks
    assert found["BF16"].n_bytes == 15 * GIB
    assert found["BF16"].files[0].endswith("00001-of-00002.gguf")


@pytest.mark.parametrize(
    ("choice", "file"),
    [
        ("Q4_K_M", "m-Q4_K_M.gguf"),
        ("q4_k_m", "m-Q4_K_M.gguf"),
        ("fp16", "m-F16.gguf"),
        ("m-Q8_0.gguf", "m-Q8_0.gguf"),
        ("UD-Q2_K_XL", "m-UD-Q2_K_XL.gguf"),
        ("m-BF16-00001-of-00002.gguf", "BF16/m-BF16-00001-of-00002.gguf"),
    ],
)
def test_named(choice: str, file: str) -> None:
    assert named(choice, candidates(SIZES), where="hf://a/b").files[0] == file


def test_a_missing_quant_lists_what_there_is() -> None:
    with pytest.raises(SourceError, match=r"hf://a/b: has no 'Q4_K_S'; did you mean Q4_K_M\?.*It has: .*Q8_0"):
        named("Q4_K_S", candidates(SIZES), where="hf://a/b")


def test_a_choice_of_two_models_is_refused() -> None:
    two = candidates({"a-Q4_0.gguf": 1, "b-Q4_0.gguf": 1})
    with pytest.raises(SourceError, match=r"names 2 models: a-Q4_0\.gguf, b-Q4_0\.gguf"):
        named("Q4_0", two, where="hf://a/b")


@pytest.mark.parametrize(("memory", "label"), [(64, "Q8_0"), (9.2, "Q8_0"), (9, "Q4_K_M"), (4, "Q2_K_XL")])
def test_the_best_that_fits(memory: float, label: str) -> None:
    chosen, why = best(candidates(SIZES), int(memory * GIB), where="hf://a/b")
    assert chosen.label == label
    assert f"{label}, " in why
    assert f"of 5 the best that fits into {memory:.1f} GiB of free memory" in why


def test_floats_are_taken_when_there_is_nothing_else() -> None:
    chosen, _ = best(candidates({"m-F32.gguf": 4 * GIB, "m-F16.gguf": 2 * GIB}), 64 * GIB, where="hf://a/b")
    assert chosen.label == "F16"


def test_nothing_fits() -> None:
    with pytest.raises(SourceError, match=r"even its smallest model, Q2_K_XL, needs about 3\.6 GiB.*hf://a/b:Q2_K_XL"):
        best(candidates(SIZES), GIB, where="hf://a/b")
