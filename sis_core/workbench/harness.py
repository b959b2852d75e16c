"""Tasks of the Language Model Evaluation Harness, answered by a model; imported only where the package lm-eval is.

Facts of its interface: ``lm_eval.api.model`` (LM, TemplateLM), ``lm_eval.tasks`` (TaskManager).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from attrs import frozen
from lm_eval import evaluator, simple_evaluate
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.tasks import TaskManager
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from sis_core.errors import ModelError, SourceError, suggest
from sis_core.sampler import log_softmax
from sis_core.texts.common import n_common
from sis_core.texts.language_model import LanguageModel
from sis_core.texts.request import Request
from sis_core.texts.session import Session

MOST_VALUES = 1 << 24  # logits of one step: 64 MiB
Progress = Callable[[str, int, int], None]
Pair = tuple[Any, list[int], list[int]]  # what it is called, the ids of a context, and those that are scored after it


@frozen
class TaskScore:
    """One figure of a task.

    Attributes:
        task: its name; of a group, the group's.
        filter: how the answers were read before they were compared; ``none`` for as they are.
        metric: what is measured, in lm-eval's words.
        value: the figure.
        error: its standard error, where there is one.
        n_shot: examples before each question; None of a group.
        n: questions that were asked; None of a group.
        higher_is_better: None where lm-eval does not say.
    """

    task: str
    filter: str
    metric: str
    value: float
    error: float | None
    n_shot: int | None
    n: int | None
    higher_is_better: bool | None


def run_tasks(
    model: LanguageModel,
    names: Sequence[str],
    *,
    n_shot: int | None = None,
    limit: int | None = None,
    progress: Progress | None = None,
) -> list[TaskScore]:
    """Run tasks, in the order of their names.

    Args:
        names: of lm-eval's tasks, groups and tags; files and folders with tasks in YAML.
        n_shot: examples before each question, where a task does not forbid it; None for what each task says.
        limit: only the first so many questions of each task.

    Raises:
        SourceError: there is no such task, or its data cannot be had.
    """
    manager, wanted = _find(names)
    where = f"--tasks {','.join(names)}"
    with _quiet():
        try:
            loaded = [task for name in wanted for task in _load(manager, name)]
        except Exception as error:  # whatever a data set's loader raises
            raise SourceError(
                f"cannot be set up: {type(error).__name__}: {error}",
                where=where,
                fix="their data come from the hub, or from files that they name: check the network and the YAML",
            ) from error
        try:
            found: Any = simple_evaluate(
                HarnessModel(model, progress), tasks=loaded, task_manager=manager, num_fewshot=n_shot, limit=limit,
                log_samples=False,
            )  # fmt: skip
        except ValueError as error:
            raise SourceError(f"cannot be run: {error}", where=where) from error
    return [score for kind in ("groups", "results") for score in _scores(found, kind)]


def _load(manager: Any, name: str) -> list[Any]:
    """A group as one, else the tasks that a name stands for."""
    loaded = manager.load([name])
    group = loaded.get("groups", {}).get(name)
    return [*loaded["tasks"].values()] if group is None else [group]


def _find(names: Sequence[str]) -> tuple[TaskManager, list[str]]:
    """A manager that knows the tasks, and what it calls them. lm-eval's own thousands are read only where needed."""
    folders = [name for name in names if os.path.isdir(name)]
    own = TaskManager(include_path=folders, include_defaults=False) if folders else None
    wanted = list(own.all_subtasks) if own else []
    others = [name for name in names if name not in folders]
    if not wanted and not others:
        raise SourceError("holds no task in YAML", where=f"--tasks {','.join(folders)}")
    named = [name for name in others if not os.path.isfile(name)]
    manager = TaskManager(include_path=folders, include_defaults=bool(named))
    for name in named:
        if name not in manager.all_tasks:
            raise SourceError(
                f"there is no task {name!r}{suggest(name, manager.all_tasks)}",
                where="--tasks",
                fix="`lm-eval ls tasks` lists them; a folder or file with tasks in YAML may be named too",
            )
    return manager, [*wanted, *others]


def _scores(found: Any, kind: str) -> Iterator[TaskScore]:
    for name, values in found.get(kind, {}).items():
        if kind == "results" and name in found.get("groups", {}):
            continue
        for key, value in values.items():
            metric, comma, filtered = key.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            error = values.get(f"{metric}_stderr,{filtered}")
            yield TaskScore(
                name,
                filtered,
                metric,
                float(value),
                float(error) if isinstance(error, int | float) else None,
                found["n-shot"].get(name),
                found["n-samples"].get(name, {}).get("effective"),
                found["higher_is_better"].get(name, {}).get(metric),
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """lm-eval tells at length what it does: here only what is wrong is told.

    It also asks git which commit it is run in, and git complains where that is none; nobody wants the answer.
    """
    told = logging.getLogger("lm_eval")
    level, commit = told.level, evaluator.get_git_commit_hash
    told.setLevel(logging.ERROR)
    evaluator.get_git_commit_hash = str
    try:
        yield
    finally:
        told.setLevel(level)
        evaluator.get_git_commit_hash = commit


class HarnessModel(TemplateLM):  # type: ignore[misc, unused-ignore]
    """A model as lm-eval asks one.

    Contexts are read as the file says (with a begin token where it wants one). What a question has in common with the
    one before is not read again: questions are asked in the order of their ids.
    """

    def __init__(self, model: LanguageModel, progress: Progress | None = None) -> None:
        super().__init__()
        self._model, self._progress = model, progress

    @property
    def max_length(self) -> int:
        """Tokens that a context and what is scored may have."""
        return self._model.config.n_ctx

    @property
    def eot_token_id(self) -> int:
        """What ends a text."""
        return min(self._model.tokenizer.end_tokens)

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text that has no context."""
        begin = self._model.tokenizer.bos
        return self.eot_token_id if begin is None else begin

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        return self._model.tokenize(string, add_special=add_special_tokens is not False)

    def loglikelihood(self, requests: Sequence[Any], **_: Any) -> list[tuple[float, bool]]:
        """Of each pair of a context and a text: the text's log-likelihood, and whether it is the likeliest."""
        found: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=True)
        return found

    def _loglikelihood_tokens(self, requests: Sequence[Pair], **_: Any) -> list[tuple[float, bool]]:
        """Of each pair: the log-likelihood of its second ids, and whether each of them is the likeliest there."""
        found: dict[int, tuple[float, bool]] = {}
        with self._model.session() as session:
            for i in sorted(range(len(requests)), key=lambda i: requests[i][1] + requests[i][2]):
                _, context, scored = requests[i]
                found[i] = self._scored(session, context, scored)
                self._tell("questions", len(found), len(requests))
        return [found[i] for i in range(len(requests))]

    def _scored(self, session: Session, context: list[int], scored: list[int]) -> tuple[float, bool]:
        if not scored:
            return 0.0, True
        if len(scored) > self.max_length:
            raise ModelError(
                f"{len(scored)} tokens are to be scored at once, and the context has {self.max_length}",
                where="--tasks",
                fix="give it a longer one (--ctx)",
            )
        fed = [*context, *scored[:-1]][-self.max_length :]
        first = len(fed) - len(scored)  # the token after which the first one is scored
        known = n_common(session.tokens(), fed[:first])
        if session.length():
            session.truncate(0, known)
        total, greedy, step = 0.0, True, max(1, min(session.step_rows, MOST_VALUES // session.model.config.n_vocab))
        for start in range(known, first, session.step_rows):
            session.advance({0: fed[start : min(start + session.step_rows, first)]}, {0: 0})
        for start in range(first, len(fed), step):
            part = fed[start : start + step]
            rows = log_softmax(session.advance({0: part}, {0: len(part)})[0])
            if np.isnan(rows).any():
                raise ModelError("the model gave a logit that is NaN", where="eval", fix="check it: `sis doctor -m`")
            wanted = scored[start - first : start - first + len(part)]
            total += float(rows[np.arange(len(part)), wanted].sum())
            greedy = greedy and bool((rows.argmax(1) == wanted).all())
        return total, greedy

    def loglikelihood_rolling(self, requests: Sequence[Any], **_: Any) -> list[float]:
        """The log-likelihood of whole texts, in windows as long as the context."""
        pairs: list[tuple[int, list[int], list[int]]] = []
        for i, request in enumerate(requests):
            ids = self._model.tokenize(request.args[0], add_special=False)
            windows = get_rolling_token_windows(ids, self.prefix_token_id, self.max_length, 1)
            pairs += [(i, *make_disjoint_window(window)) for window in windows]
        totals = [0.0] * len(requests)
        for (i, _context, _scored), (value, _greedy) in zip(pairs, self._loglikelihood_tokens(pairs), strict=True):
            totals[i] += value
        return totals

    def generate_until(self, requests: Sequence[Any], **_: Any) -> list[str]:
        """Texts that go on from contexts until one of the strings that each names."""
        texts, n = [""] * len(requests), 0
        with self._model.scheduler() as scheduler:
            places = {scheduler.add(self._request(*request.args)): i for i, request in enumerate(requests)}
            for piece in scheduler.run():
                if piece.error is not None:
                    raise piece.error
                texts[places[piece.sequence]] += piece
                if piece.finish_reason is not None:
                    n += 1
                    self._tell("replies", n, len(requests))
        return texts

    def _request(self, context: str, given: dict[str, Any]) -> Request:
        asked = normalize_gen_kwargs(given)
        most = min(asked["max_gen_toks"], self.max_length - 1)
        drawn = {name: asked[name] for name in ("temperature", "top_k", "top_p", "min_p") if name in asked}
        return self._model.request(
            self.tok_encode(context)[-(self.max_length - most) :],
            max_tokens=most,
            stop=asked["until"],
            seed=0,
            **(drawn if asked["do_sample"] and drawn.get("temperature") else {"sampler": "greedy"}),
        )

    def _tell(self, what: str, done: int, total: int) -> None:
        if self._progress:
            self._progress(what, done, total)
