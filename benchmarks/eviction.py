"""What a cache that lets go of pages costs: KL divergence from the full cache, by distance.

    python benchmarks/eviction.py --model SmolLM2-135M-Instruct.gguf --text FOLDER_OF_TEXTS

Both read the same tokens of a text; each figure is the mean of KL(full ‖ less) in nats over the places of a stretch.
The first table is of texts that outgrow a context: `sinks:4` and `shift` with --ctx tokens, beside a cache that keeps
all of them, by place in the text. The second is of long prompts, of which `snapkv` keeps a part, beside the same part
of the newest pages: by distance from the prompt's end.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
import numpy as np

import sis_core
from sis_core.arrays import F32, F64
from sis_core.cache.snapkv import SnapKV
from sis_core.eviction import Eviction
from sis_core.sampler import log_softmax
from sis_core.texts.language_model import LanguageModel
from sis_core.texts.retention import BestOfPrompt, Retention, SinksAndWindow
from sis_core.texts.running import shifted
from sis_core.texts.session import Session

ROWS = 64  # whose logits are held at once
AFTER = (32, 64, 128, 256)  # ends of the stretches after a prompt


@attrs.frozen
class Newest(Eviction):
    """What a window alone would keep of a prompt, and its first page."""

    name = "newest"
    keep: int = 2048
    window: int = 32

    def rate(self, attention: Sequence[F32]) -> F32:
        scores = np.arange(attention[0].shape[2], dtype=np.float32)
        scores[0] = len(scores)
        return scores


def divergence(full: F32, less: F32) -> F64:
    """KL(full ‖ less) in nats of each row of logits."""
    p, q = log_softmax(full), log_softmax(less)
    found: F64 = (np.exp(p) * (p - q)).sum(-1)
    return found


def parts(tokens: Sequence[int]) -> Iterator[tuple[int, Sequence[int]]]:
    """Stretches of a text, and where each begins."""
    for at in range(0, len(tokens), ROWS):
        yield at, tokens[at : at + ROWS]


class Shifted:
    """A session that shifts as the scheduler does."""

    def __init__(self, session: Session) -> None:
        self.session, self.ids = session, list[int]()

    def feed(self, tokens: Sequence[int]) -> F32:
        """The logits of every one."""
        rows, at, n_ctx = [], 0, self.session.n_ctx
        while at < len(tokens):
            if len(self.ids) == n_ctx:
                self.ids = shifted(self.ids, n_ctx, 4)
                self.session.rewrite(0, self.ids)
            part = tokens[at : at + n_ctx - len(self.ids)]
            self.ids += part
            at += len(part)
            rows.append(self.session.feed(part, every=True))
        return np.concatenate(rows)


def outgrown(
    model: LanguageModel, tokens: Sequence[int], n_ctx: int, stretch: int
) -> dict[str, dict[int, list[float]]]:
    """Divergences of each way by the end of the stretch."""
    found: dict[str, dict[int, list[float]]] = {
        f"sinks:4, {n_ctx}": defaultdict(list),
        f"shift, {n_ctx}": defaultdict(list),
    }
    with (
        model.session(n_ctx=len(tokens)) as full,
        model.session(n_ctx=n_ctx) as less,
        model.session(n_ctx=n_ctx) as again,
    ):
        less.retain(0, SinksAndWindow(4, n_ctx))
        shifting = Shifted(again)
        for at, part in parts(tokens):
            wanted = full.feed(part, every=True)
            ways = less.feed(part, every=True), shifting.feed(part)
            for by_end, rows in zip(found.values(), ways, strict=True):
                by_end[(at // stretch + 1) * stretch] += divergence(wanted, rows).tolist()
        if less.nbytes > model.forward.cache_nbytes(model.options.kv_type, n_ctx):
            raise SystemExit(f"the cache took {less.nbytes} bytes")
    return found


def after_prompts(
    model: LanguageModel, tokens: Sequence[int], n_prompt: int, keeps: Sequence[int]
) -> dict[str, dict[int, list[float]]]:
    """Divergences after a prompt of ``n_prompt`` tokens, by the end of the stretch."""
    found: dict[str, dict[int, list[float]]] = {}
    ways: dict[str, Retention | None] = {"": None}
    for keep in keeps:
        ways[f"snapkv:{keep}"] = BestOfPrompt(SnapKV(keep), n_prompt)
        ways[f"newest {keep}"] = BestOfPrompt(Newest(keep), n_prompt)
    rows: dict[str, F32] = {}
    following = tokens[n_prompt : n_prompt + AFTER[-1]]
    for name, retention in ways.items():
        with model.session(n_ctx=n_prompt + len(following)) as session:
            session.retain(0, retention)
            session.feed(tokens[:n_prompt])
            rows[name] = session.feed(following, every=True)
    for name in ways:
        if name:
            every = divergence(rows[""], rows[name])
            begins = (0, *AFTER[:-1])
            found[name] = {end: every[begin:end].tolist() for begin, end in zip(begins, AFTER, strict=True)}
    return found


def texts(model: LanguageModel, folder: Path, n: int, count: int) -> Iterator[list[int]]:
    """The first ``n`` tokens of the first texts of a folder that have so many."""
    for path in sorted(folder.glob("*.txt")):
        if count and path.stat().st_size > 6 * n:
            tokens = model.tokenize(path.read_text("utf-8")[: 8 * n])
            if len(tokens) >= n:
                count -= 1
                yield tokens[:n]


def add(to: dict[str, dict[int, list[float]]], more: dict[str, dict[int, list[float]]]) -> None:
    for name, by_end in more.items():
        for end, values in by_end.items():
            to.setdefault(name, {}).setdefault(end, []).extend(values)


def show(title: str, found: dict[str, dict[int, list[float]]]) -> None:
    print(f"\n{title}")
    ends = sorted({end for by_end in found.values() for end in by_end})
    print("| | " + " | ".join(f"to {end}" for end in ends) + " |")
    print("| --- |" + " --- |" * len(ends))
    for name, by_end in found.items():
        print(f"| {name} | " + " | ".join(f"{np.mean(by_end[end]):.4f}" for end in ends) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="by default the built-in one")
    parser.add_argument("--text", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--texts", type=int, default=2, help="how many are read")
    parser.add_argument("--ctx", type=int, nargs="*", default=[512, 1024], help="contexts that are outgrown")
    parser.add_argument("--length", type=int, default=4096, help="tokens of a text")
    parser.add_argument("--stretch", type=int, default=1024, help="places of a column of the first table")
    parser.add_argument("--prompt", type=int, default=2048, help="tokens of a prompt")
    parser.add_argument("--keep", type=int, nargs="*", default=[256, 512, 1024], help="of which so many stay")
    parser.add_argument("--backend")
    parser.add_argument("--kv-type", default="f16")
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    long: dict[str, dict[int, list[float]]] = {}
    prompts: dict[str, dict[int, list[float]]] = {}
    n = max(given.length, given.prompt + AFTER[-1])
    with sis_core.load(given.model, backend=given.backend, kv_type=given.kv_type, n_ctx=n) as model:
        for tokens in texts(model, given.text, n, given.texts):
            for n_ctx in given.ctx:
                add(long, outgrown(model, tokens[: given.length], n_ctx, given.stretch))
            add(prompts, after_prompts(model, tokens, given.prompt, given.keep))
    if not (long or prompts):
        raise SystemExit(f"no text of {n} tokens in {given.text}")
    tables = [("texts that outgrow their context, by place", long)]
    tables.append((f"after prompts of {given.prompt} tokens, by distance", prompts))
    for title, found in tables:
        if found:
            show(f"{model.path.name}: {title}", found)
    if given.json:
        means = [
            {name: {end: float(np.mean(v)) for end, v in by_end.items()} for name, by_end in table.items()}
            for table in (long, prompts)
        ]
        given.json.write_text(
            json.dumps({"model": model.path.name, "outgrown": means[0], "prompts": means[1]}, indent=1)
        )


if __name__ == "__main__":
    main()
