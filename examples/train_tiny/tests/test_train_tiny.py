"""A run of a few steps on a few kilobytes, and the file it writes, opened without the trainer's own reader."""

import csv
import random
import sys
from pathlib import Path

import pytest

for needed in ("torch", "tokenizers", "gguf", "click", "pyppmd", "tqdm"):
    pytest.importorskip(needed, reason=f"training needs {needed}: pip install -e examples/train_tiny")
sys.path.insert(0, str(Path(__file__).parents[1]))

import gguf  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from click.testing import CliRunner  # noqa: E402

from train_tiny.__main__ import main  # noqa: E402
from train_tiny.answers import Sampling, answer, prompt_of  # noqa: E402
from train_tiny.batches import rows_of  # noqa: E402
from train_tiny.blend import main as blend  # noqa: E402
from train_tiny.chat import ASSISTANT, TEMPLATE, USER  # noqa: E402
from train_tiny.evaluate import bits_per_byte, story_bits, verbatim_share  # noqa: E402
from train_tiny.export import read_gguf, requantised  # noqa: E402
from train_tiny.held_out import main as draw_held_out  # noqa: E402
from train_tiny.model import Shape, TinyLlama  # noqa: E402
from train_tiny.optimise import orthogonalise, schedule  # noqa: E402
from train_tiny.sample import Stepper, draw_stories  # noqa: E402
from train_tiny.talk_run import packed_rows  # noqa: E402
from train_tiny.text import read_stories  # noqa: E402
from train_tiny.vocabulary import train_vocabulary  # noqa: E402

PEOPLE = ["a king", "the old woman", "a soldier", "his youngest daughter", "the fox", "a poor miller"]
DEEDS = ["went to the forest", "found a golden ring", "slept for seven years", "said nothing", "built a ship"]


def story(seed: int) -> str:
    """A story of about 400 bytes."""
    pick = random.Random(seed)
    lines = [f"Once upon a time {pick.choice(PEOPLE)} {pick.choice(DEEDS)}." for _ in range(6)]
    return "\n\n".join([*lines, f"And that was number {seed}."])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 40 short stories in one file."""
    path = tmp_path_factory.mktemp("text")
    (path / "tales.txt").write_text("".join(f"<|story|>\n\n{story(i)}\n\n" for i in range(40)), encoding="utf-8")
    return path


def train(folder: Path, out: Path, steps: int = 20, kind: str = "F32", more: str = "--context 64") -> None:
    """Run the command line on a folder."""
    options = f"--steps {steps} --vocab 320 --layers 2 --no-compile --f32 --type {kind} {more}"
    result = CliRunner().invoke(main, [str(folder), str(out), *options.split()], catch_exceptions=False)
    assert result.exit_code == 0, result.output


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model after 20 steps, as an F32 file."""
    out = tmp_path_factory.mktemp("model") / "story.gguf"
    train(folder, out)
    return out


def test_training_lowers_the_loss(trained: Path, folder: Path) -> None:
    """After 20 steps the model needs far fewer bits than one that knows nothing."""
    model, vocabulary = read_gguf(trained)
    held_out = read_stories(folder).held_out
    assert bits_per_byte(model, vocabulary, held_out) < 0.6 * bits_per_byte(
        TinyLlama(model.shape), vocabulary, held_out
    )
    with trained.with_suffix(".run").joinpath("log.csv").open() as file:
        assert list(csv.DictReader(file))[-1]["step"] == "20"


def test_a_run_goes_on_from_its_checkpoint(folder: Path, tmp_path: Path) -> None:
    """A second start with more steps continues; a third with no steps left only writes the file again."""
    out = tmp_path / "story.gguf"
    train(folder, out, steps=3)
    train(folder, out, steps=5)
    assert torch.load(tmp_path / "story.run" / "checkpoint.pt", weights_only=True)["step"] == 5
    train(folder, out, steps=5, kind="Q8_0")
    assert torch.load(tmp_path / "story.run" / "checkpoint.pt", weights_only=True)["step"] == 5


def test_training_goes_on_from_a_file(trained: Path, folder: Path, tmp_path: Path) -> None:
    """The first step knows what the file knew, in a longer context, and the vocabulary is the file's."""
    train(folder, tmp_path / "more.gguf", steps=1, more=f"--context 96 --from {trained}")
    (old, vocabulary), (new, same) = read_gguf(trained), read_gguf(tmp_path / "more.gguf")
    assert new.shape.n_ctx == 96 and same.tokens() == vocabulary.tokens() and same.merges() == vocabulary.merges()
    held_out = read_stories(folder).held_out
    assert bits_per_byte(new, same, held_out) < 1.1 * bits_per_byte(old, vocabulary, held_out)


@pytest.fixture(scope="module")
def talking(trained: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that went on from the trained one with talks beside the stories."""
    path = tmp_path_factory.mktemp("talks")
    requests = path / "requests.tsv"
    result = CliRunner().invoke(draw_held_out, [str(requests), "--count", "4"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    train(folder, path / "talks.gguf", steps=2, more=f"--context 512 --rows 4 --from {trained} --talks {requests}")
    return path / "talks.gguf"


def test_a_model_that_talks_has_control_tokens_and_a_template(trained: Path, talking: Path) -> None:
    """Two more tokens, both control; the template; everything else as before."""
    fields = gguf.GGUFReader(talking).fields
    assert fields["tokenizer.chat_template"].contents() == TEMPLATE
    (_, before), (model, after) = read_gguf(trained), read_gguf(talking)
    assert after.tokens() == [*before.tokens(), USER, ASSISTANT] and model.shape.n_vocab == after.size
    assert after.control() == {after.bos, after.eos, before.size, before.size + 1}
    assert prompt_of(["Hi"], after)[:2] == [after.bos, before.size] and prompt_of(["Hi"], after)[-1] == after.size - 1
    assert prompt_of(["Hi", "Ho", "Hi"], after).count(after.eos) == 1


def test_answers_follow_the_seed_and_know_whether_they_ended(talking: Path) -> None:
    """Rows of different lengths run together; a row alone that is greedy says the same."""
    model, vocabulary = read_gguf(talking)
    model = model.with_context(640)
    talks = [["Tell me a story."], ["Tell me a story about a fox and a ring, please.", "Once.", "Go on."]]
    greedy = Sampling(top_k=1)
    both = answer(model, vocabulary, talks, greedy)
    assert both == [answer(model, vocabulary, [talk], greedy)[0] for talk in talks]
    assert answer(model, vocabulary, talks, Sampling(seed=4)) == answer(model, vocabulary, talks, Sampling(seed=4))
    assert all(reply.ended or reply.text for reply in both)


def test_a_blend_lies_between_two_files(trained: Path, talking: Path, tmp_path: Path) -> None:
    """Half of the way for what both have, and less sure; what only one has stays. Another model's file is refused."""
    out = tmp_path / "half.gguf"
    options = ["--type", "F32", "--temperature", "1.25"]
    result = CliRunner().invoke(blend, [str(talking), str(trained), "0.5", str(out), *options])
    assert result.exit_code == 0, result.output
    (half, vocabulary), (new, _), (old, before) = read_gguf(out), read_gguf(talking), read_gguf(trained)
    assert vocabulary.size == before.size + 2 and "tokenizer.chat_template" in gguf.GGUFReader(out).fields
    torch.testing.assert_close(half.output_norm.weight, (new.output_norm.weight + old.output_norm.weight) / 2 / 1.25)
    rows, more = half.token_embd.weight, new.token_embd.weight
    torch.testing.assert_close(rows[: before.size], (more[: before.size] + old.token_embd.weight) / 2)
    torch.testing.assert_close(rows[before.size :], more[before.size :])
    refused = CliRunner().invoke(blend, [str(trained), str(talking), "0.5", str(out)])
    assert refused.exit_code == 2 and "did not go on from" in refused.output


def test_talks_want_a_model_that_tells_stories(folder: Path, tmp_path: Path) -> None:
    """Without --from the command says what is missing."""
    options = [str(folder), str(tmp_path / "x.gguf"), "--talks", str(folder / "tales.txt")]
    result = CliRunner().invoke(main, options)
    assert result.exit_code == 2 and "name its file with --from" in result.output


def test_packed_rows_begin_with_a_talk_and_are_full() -> None:
    """Talks stay whole, in order; stories fill the rest; a talk that fits no row is left out."""
    talks = [(np.full(n, n, dtype=np.int32), np.full(n, 0.5, dtype=np.float32)) for n in (6, 5, 4, 20)]
    ids, weights = packed_rows(talks, [np.arange(100, 103, dtype=np.int32)], 10, np.random.default_rng(0))
    assert ids.tolist() == [[6] * 6 + [5] * 5, [4] * 4 + [100, 101, 102, 100, 101, 102, 100]]
    assert weights.tolist() == [[0.5] * 11, [0.5] * 4 + [1.0] * 7]


@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_in_parts_is_the_loss(weighted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Value and gradients are those of the plain formula over all logits at once."""
    monkeypatch.setattr("train_tiny.head_loss.ROWS", 7)
    torch.manual_seed(0)
    model = TinyLlama(Shape(n_vocab=300, n_layer=1, n_ctx=16))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    ids = torch.randint(0, 300, (3, 13))
    weights = torch.rand(3, 12).mul(2).sub(0.6).clamp(0) if weighted else None
    loss = model.loss(ids[:, :-1], ids[:, 1:], weights)
    loss.backward()
    found = [parameter.grad for parameter in model.parameters()]
    model.zero_grad()
    each = torch.nn.functional.cross_entropy(model(ids[:, :-1]).mT, ids[:, 1:], reduction="none")
    shares = torch.ones_like(each) if weights is None else weights
    expected = (each * shares).sum() / shares.sum()
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(found, [parameter.grad for parameter in model.parameters()])


def numpy_logits(path: Path, ids: list[int]) -> np.ndarray:
    """Logits (T, n_vocab) by the plain formulas of the llama architecture, from nothing but the file."""
    reader = gguf.GGUFReader(path)
    tensors = {t.name: gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float64) for t in reader.tensors}
    field = {name: entry.contents() for name, entry in reader.fields.items() if name.startswith("llama.")}
    heads, kv_heads = field["llama.attention.head_count"], field["llama.attention.head_count_kv"]
    size, eps = field["llama.rope.dimension_count"], field["llama.attention.layer_norm_rms_epsilon"]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * tensors[name]

    def turn(x: np.ndarray) -> np.ndarray:
        out = np.empty_like(x)
        for t in range(x.shape[0]):
            for j in range(0, size, 2):
                angle = t * field["llama.rope.freq_base"] ** (-j / size)
                a, b = x[t, :, j], x[t, :, j + 1]
                out[t, :, j] = a * np.cos(angle) - b * np.sin(angle)
                out[t, :, j + 1] = a * np.sin(angle) + b * np.cos(angle)
        return out

    x = tensors["token_embd.weight"][ids]
    future = np.triu(np.full((len(ids), len(ids)), -np.inf), 1)
    for i in range(field["llama.block_count"]):

        def w(name: str, i: int = i) -> np.ndarray:
            return tensors[f"blk.{i}.{name}.weight"].T

        h = norm(x, f"blk.{i}.attn_norm.weight")
        q = turn((h @ w("attn_q")).reshape(len(ids), heads, size))
        k = turn((h @ w("attn_k")).reshape(len(ids), kv_heads, size))
        v = (h @ w("attn_v")).reshape(len(ids), kv_heads, size)
        mixed = np.empty_like(q)
        for head in range(heads):
            shared = head // (heads // kv_heads)
            scores = np.exp(q[:, head] @ k[:, shared].T / np.sqrt(size) + future)
            mixed[:, head] = scores / scores.sum(-1, keepdims=True) @ v[:, shared]
        x = x + mixed.reshape(len(ids), -1) @ w("attn_output")
        h = norm(x, f"blk.{i}.ffn_norm.weight")
        gate = h @ w("ffn_gate")
        x = x + (gate / (1 + np.exp(-gate)) * (h @ w("ffn_up"))) @ w("ffn_down")
    return norm(x, "output_norm.weight") @ tensors["token_embd.weight"].T


def test_the_file_means_what_the_model_computes(trained: Path) -> None:
    """A second, independent forward pass over the file's tensors gives the trainer's logits."""
    model, vocabulary = read_gguf(trained)
    ids = vocabulary.encode(story(3))[:40]
    with torch.no_grad():
        expected = model(torch.tensor([ids]))[0].numpy()
    np.testing.assert_allclose(numpy_logits(trained, ids), expected, atol=1e-4)


def test_the_file_is_complete(trained: Path) -> None:
    """Every key a reader needs is there, and the tokenizer of the file alone restores any text."""
    fields = gguf.GGUFReader(trained).fields
    for key in ("general.name", "general.description", "general.file_type"):
        assert key in fields
    assert fields["tokenizer.ggml.model"].contents() == "gpt2"
    assert len(fields["tokenizer.ggml.token_type"].contents()) == fields["llama.vocab_size"].contents()
    _, vocabulary = read_gguf(trained)
    for text in (story(99), "naïve – 狐\n\n\n  end\t"):
        assert vocabulary.decode(vocabulary.encode(text)) == text


def test_q8_0_changes_little(trained: Path, folder: Path) -> None:
    """Rounding to Q8_0 moves the loss by less than a hundredth of a bit."""
    model, vocabulary = read_gguf(trained)
    held_out = read_stories(folder).held_out
    rounded = bits_per_byte(requantised(model, "Q8_0"), vocabulary, held_out)
    assert abs(rounded - bits_per_byte(model, vocabulary, held_out)) < 0.01


def test_windows_count_every_token_once() -> None:
    """A model that knows nothing needs log2(n_vocab) bits for each token, however long the story."""
    model = TinyLlama(Shape(n_vocab=256, n_layer=1, n_ctx=16))
    torch.nn.init.zeros_(model.token_embd.weight)
    for length in (2, 16, 17, 18, 24, 25, 26, 100):
        assert story_bits(model, [1] * length) == pytest.approx(8 * (length - 1))


def test_steps_with_kept_keys_equal_a_whole_pass() -> None:
    """One token at a time gives the same logits as all at once."""
    torch.manual_seed(0)
    model = TinyLlama(Shape(n_vocab=300, n_layer=2, n_ctx=16))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    ids = torch.randint(0, 300, (3, 12))
    stepper = Stepper(model, 3)
    stepped = torch.stack([stepper.step(ids[:, t]) for t in range(12)], dim=1)
    torch.testing.assert_close(stepped, model(ids).detach(), atol=1e-4, rtol=1e-4)


def test_drawn_stories_follow_the_seed(trained: Path) -> None:
    """The same seed draws the same stories."""
    model, vocabulary = read_gguf(trained)
    assert draw_stories(model, vocabulary, 2, 0.8, seed=5) == draw_stories(model, vocabulary, 2, 0.8, seed=5)


def test_verbatim_share() -> None:
    """A copied text is found whole, a new one not at all, and windows do not reach over a story's end."""
    train_text = [story(1), story(2)]
    assert verbatim_share([story(1)], train_text) == 1.0
    assert verbatim_share(["x" * 80], train_text) == 0.0
    assert verbatim_share([story(1) + story(2)], train_text) < 1.0


def test_rows_give_every_token_one_turn_as_target() -> None:
    """Rows overlap by one token, so that targets follow each other without a gap."""
    rows = rows_of([np.arange(10), np.arange(10, 21)], 5)
    assert rows[:, 1:].ravel().tolist() == list(range(1, 21))


def test_held_out_stories_do_not_depend_on_order(folder: Path, tmp_path: Path) -> None:
    """A story stays on its side when the files are cut differently."""
    (tmp_path / "a.txt").write_text("<|story|>".join(story(i) for i in range(20, 40)), encoding="utf-8")
    (tmp_path / "b.txt").write_text("<|story|>".join(story(i) for i in range(20)), encoding="utf-8")
    assert sorted(read_stories(tmp_path).held_out) == sorted(read_stories(folder).held_out)


def test_vocabulary_counts_control_tokens_first(folder: Path) -> None:
    """The marks of beginning and end are ids 0 and 1; a small vocabulary is filled to its size."""
    vocabulary = train_vocabulary(read_stories(folder).train, 300)
    assert (vocabulary.bos, vocabulary.eos) == (0, 1)
    assert len(vocabulary.tokens()) == 300


def test_orthogonalise_and_schedule() -> None:
    """Muon's step has singular values near 1; the rate rises, stays level and ends at nothing."""
    values = torch.linalg.svdvals(orthogonalise(torch.randn(2, 32, 64, generator=torch.manual_seed(0))))
    assert values.min() > 0.5 and values.max() < 1.5
    assert [schedule(0.0), schedule(0.3), schedule(1.0)] == [0.0, 1.0, 0.0]
