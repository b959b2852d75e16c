"""benchmarks/accuracy.py: what its figures are. The peer's program is a fake."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from accuracy import Row, divergence, ours, table
from random_model import write_model
from shapes import SHAPES
from speed.perplexity import PeersError, coded, places, read_base, theirs

N_VOCAB = 5
LOGITS = np.random.default_rng(0).normal(0, 3, (3, N_VOCAB)).astype(np.float32)  # the places of a chunk of 8
TOKENS = np.arange(8, dtype=np.int32)


def base(logits: np.ndarray, tokens: np.ndarray) -> bytes:
    """A file of ``--kl-divergence-base``, written as llama.cpp's perplexity.cpp says."""
    data = b"_logits_" + np.array([len(tokens), N_VOCAB, 1], np.int32).tobytes() + tokens.tobytes()
    for row in logits:
        low = max(row.min(), row.max() - 16)
        scale = (row.max() - low) / 65535
        first = np.array([scale, low - np.log(np.exp(row.astype(np.float64)).sum())], np.float32).tobytes()
        codes = np.zeros(N_VOCAB + N_VOCAB % 2, np.uint16)
        codes[:N_VOCAB] = np.rint((np.maximum(row, low) - low) / scale)
        data += first + codes.tobytes()
    return data


def test_divergence_is_that_of_the_distributions() -> None:
    true, found = np.log([[0.5, 0.5], [0.9, 0.1]]), np.log([[0.25, 0.75], [0.9, 0.1]])
    first = 0.5 * np.log(0.5 / 0.25) + 0.5 * np.log(0.5 / 0.75)
    assert divergence(true + 3.0, found - 1.0) == pytest.approx([first, 0])  # logits, up to a constant


def test_what_a_file_of_the_peer_keeps(tmp_path: Path) -> None:
    logits = LOGITS.copy()
    logits[1, 2] = logits[1].max() - 40  # further below the likeliest than is kept
    (tmp_path / "base").write_bytes(base(logits, TOKENS))
    tokens, found = read_base(tmp_path / "base")
    assert tokens.tolist() == TOKENS.tolist()
    assert found.shape == (places(8), N_VOCAB)
    assert np.exp(found[0]).sum() == pytest.approx(1, abs=1e-4)
    kept = coded(logits)
    assert kept[1, 2] == pytest.approx(kept[1].max() - kept[1].min() - 16 + kept[1].min(), abs=1e-5)
    assert found - found.max(-1, keepdims=True) == pytest.approx(kept - kept.max(-1, keepdims=True), abs=3e-4)
    assert max(divergence(logits[[0, 2]], kept[[0, 2]])) < 1e-8  # what 16 bits round away
    (tmp_path / "base").write_bytes(b"GGUF" * 8)
    with pytest.raises(PeersError, match="does not begin"):
        read_base(tmp_path / "base")


def fake(folder: Path, data: bytes) -> Path:
    """A peer's folder, whose llama-perplexity writes this file where it was asked to, or says what was wrong."""
    (folder / "data").write_bytes(data)
    program = folder / "llama-perplexity"
    program.write_text(f"""#!{sys.executable}
import shutil, sys
if "--kl-divergence-base" not in sys.argv or sys.argv[sys.argv.index("-ub") + 1] not in ("1", "8"): sys.exit("usage")
if {len(data)} == 0: sys.exit("unknown type")
shutil.copy({str(folder / "data")!r}, sys.argv[sys.argv.index("--kl-divergence-base") + 1])
""")
    program.chmod(0o755)
    return folder


def test_what_a_peer_says(tmp_path: Path) -> None:
    asked = (Path("m.gguf"), Path("t.txt"), "one by one")
    folder = fake(tmp_path, base(LOGITS, TOKENS))
    assert max(divergence(LOGITS, theirs(folder, *asked, TOKENS, 1, tmp_path))) < 1e-8
    with pytest.raises(PeersError, match="other tokens"):
        theirs(folder, *asked, TOKENS + 1, 1, tmp_path)
    (tmp_path / "base").unlink()
    with pytest.raises(PeersError, match="unknown type"):
        theirs(fake(tmp_path, b""), *asked, TOKENS, 1, tmp_path)


def test_the_table_holds_sis_against_the_better_peer() -> None:
    values = {"a": [2.0, 2.0], "b": [9.0, 9.0], "avx2": [1.0, 3.0], "avx_vnni": [4.0, 5.0], "amx": [1.0, 2.0]}
    rows = [Row("f", "prompt", side, found) for side, found in values.items()]
    cells = table(rows, ["a", "b", "c"]).splitlines()[-1].split(" | ")
    assert cells[2:5] == ["2.0e+00", "9.0e+00", "–"]
    assert cells[5:] == ["2.0e+00, 1.00 ± 0.50", "4.5e+00, 2.25 ± 0.25 ✗", "1.5e+00, 0.75 ± 0.25 |"]
    assert "±" not in table(rows[-1:], [])


def test_logits_are_those_of_the_second_half(tmp_path: Path) -> None:
    write_model(SHAPES["gpt2"].scaled_down(), tmp_path / "t.gguf", file_type="Q8_0")
    text = Path(__file__).parents[1] / "docs" / "gguf.md"
    tokens, reference = ours(tmp_path / "t.gguf", text, "numpy", 8, 1)
    assert (len(tokens), reference["prompt"].shape) == (8, (3, 320))
    _, found = ours(tmp_path / "t.gguf", text, "portable", 8, 1)
    for logits in found.values():
        assert 0 < max(divergence(reference["prompt"], logits)) < 0.1
    with pytest.raises(PeersError, match=r"none\.gguf: no such file"):
        ours(tmp_path / "none.gguf", text, "numpy", 8, 1)
