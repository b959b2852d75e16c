"""The model as people use it from Python: text in, text out."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from typing import Any, Literal, overload

import numpy as np

from sis_core.arrays import F32
from sis_core.cache.pages import PAGE_SIZE
from sis_core.chat import Chat, Event, Message, Reply
from sis_core.loading.checks import check_option, several, several_texts, token_ids
from sis_core.loading.model import Model
from sis_core.loading.open import open_model
from sis_core.loading.options import HALF, LoadOptions, Policy, documented
from sis_core.registry import Registry
from sis_core.sampler import Sampler
from sis_core.source import Preset, Progress, preset_for, resolve
from sis_core.stages.backend import in_stages
from sis_core.texts.chain_text import make_chain
from sis_core.texts.chat_format import open_chat
from sis_core.texts.context import Context, make_context
from sis_core.texts.conversation import Conversation, and_close
from sis_core.texts.drafting import NOBODY, Drafting, make_drafting
from sis_core.texts.embedding import in_groups, pooled, pooling_of
from sis_core.texts.preset import usable
from sis_core.texts.prompt_cache import PromptCache
from sis_core.texts.request import Completion, Piece, Request, Wanted
from sis_core.texts.scheduler import Scheduler
from sis_core.texts.session import Session

Prompt = str | Sequence[int]


class LanguageModel(Model):
    """A `Model` with text. Make one with `load`.

    Attributes:
        preset: what the source of the file has set for it: options of samplers and stops of a `request` that names no
            samplers, the system message of a chat without one.
        drafting: who guesses what comes next, for all its texts.
        context: what a `request` that says nothing else does at the end of its context.
    """

    on_error: Policy = "strict"
    preset: Preset = Preset()
    drafting: Drafting = NOBODY
    context: Context = "error"

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """Token ids of ``text``; ``add_special`` adds what the model wants at the beginning."""
        check_option("text", text, kind=str)
        check_option("add_special", add_special, kind=bool)
        check_option("parse_special", parse_special, kind=bool)
        return self.tokenizer.encode(text, add_special=add_special, parse_special=parse_special)

    def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of token ids, without control tokens."""
        return self.tokenizer.decode(token_ids(tokens, "tokens"))

    def with_backend(self, backend: str) -> LanguageModel:
        """A second model over the same file with another backend; each is closed on its own."""
        other = super().with_backend(backend)
        other.on_error, other.preset, other.drafting = self.on_error, self.preset, self.drafting
        other.context = self.context
        return other

    def session(self, *, n_ctx: int | None = None, max_tokens: int | None = None) -> Session:
        """A session for working token by token. ``max_tokens`` (at least ``n_ctx``) is what its
        cache holds over all sequences."""
        return Session(self, n_ctx=n_ctx, max_tokens=max_tokens, on_error=self.on_error)

    def scheduler(self, *, max_tokens: int | None = None, reuse: bool = True, stall: float | None = None) -> Scheduler:
        """A `Scheduler` for many texts that come and go; a context manager.

        Args:
            max_tokens: what its cache holds over all texts, and at most one of them; by default one text of ``n_ctx``.
            reuse: texts that begin alike share what is known of the beginning, also with texts that ended.
            stall: seconds that texts may wait for the prompts of others in one step.
        """
        check_option("max_tokens", max_tokens, least=1, optional=True)
        n_ctx = self.config.n_ctx if max_tokens is None else min(self.config.n_ctx, max_tokens)
        session = self.session(n_ctx=n_ctx, max_tokens=max_tokens)
        return Scheduler(session, reuse=reuse, stall=stall, drafting=self.drafting)

    def generate(self, prompt: Prompt, **options: Any) -> Iterator[Piece]:
        """Continue ``prompt`` (text or token ids), piece by piece; what goes wrong is raised.

        Options are those of `request`, and the options of any sampler (``temperature=0.8``). Nothing is kept for the
        next call: for that there is `scheduler`.
        """
        request = self.request(prompt, **options)
        return self.stream([request])

    def generate_batch(self, prompts: Sequence[Prompt], **options: Any) -> list[Completion]:
        """Continue several prompts together: each step of the model serves all of them.

        What goes wrong with one of them is its completion's ``error``, and the others go on.
        """
        requests = [self.request(prompt, **options) for prompt in several("prompts", prompts)]
        pieces: list[list[Piece]] = [[] for _ in requests]
        for piece in self.together(requests):
            pieces[piece.sequence].append(piece)
        return [Completion.of(part) for part in pieces]

    def chat_format(self, template: str | None = None) -> Chat:
        """How this model's chats are written: by the file's own template, or by ``template``, a chat format's name or
        a file with a Jinja template.

        ChatError when nobody knows.
        """
        return open_chat(self, template)

    def conversation(
        self,
        template: str | None = None,
        *,
        max_tokens: int | None = None,
        prompt_cache: str | os.PathLike[str] | PromptCache | None = None,
    ) -> Conversation:
        """A `Conversation`, which reads nothing twice; a context manager.

        Args:
            template: as for `chat_format`.
            max_tokens: what its cache holds; by default one text of ``n_ctx``.
            prompt_cache: a folder in which another conversation finds what this one has read.
        """
        check_option("prompt_cache", prompt_cache, kind=(str, os.PathLike, PromptCache), optional=True)
        disk = PromptCache(prompt_cache) if isinstance(prompt_cache, str | os.PathLike) else prompt_cache
        return Conversation(self, self.chat_format(template), max_tokens=max_tokens, prompt_cache=disk)

    @overload
    def chat(
        self, messages: Sequence[Message], *, stream: Literal[True], template: str | None = None, **options: Any
    ) -> Iterator[Event]: ...

    @overload
    def chat(
        self,
        messages: Sequence[Message],
        *,
        stream: Literal[False] = False,
        template: str | None = None,
        **options: Any,
    ) -> Reply: ...

    def chat(
        self, messages: Sequence[Message], *, stream: bool = False, template: str | None = None, **options: Any
    ) -> Reply | Iterator[Event]:
        """The reply to messages: whole, or with ``stream`` its events as they come.

        Options are those of `Conversation.stream` (``tools=``, ``schema=`` …) and of `request`. Nothing is kept for the
        next call: for that there is `conversation`.
        """
        conversation = self.conversation(template)
        try:
            events = conversation.stream(messages, **options)
        except BaseException:
            conversation.close()
            raise
        following = and_close(events, conversation)
        return following if stream else Reply.of(following)

    def request(
        self,
        prompt: Prompt,
        *,
        sampler: str | Sampler | Sequence[Sampler] | None = None,
        samplers: str | Sequence[Sampler] | None = None,
        max_tokens: int | None = 128,
        stop: Sequence[str] | str = (),
        seed: int | None = None,
        logprobs: int | None = None,
        prompt_logprobs: int | None = None,
        want: Wanted = "text",
        context: str | Context | None = None,
        n_keep: int = 4,
        ignore_end: bool = False,
        spell_special: bool = False,
        adapter: str | None = None,
        priority: int = 0,
        salt: str = "",
        add_special: bool = True,
        parse_special: bool = False,
        **options: Any,
    ) -> Request:
        """A `Request` from what a person would write. Without ``seed`` every call draws anew."""
        if isinstance(prompt, str):
            prompt = self.tokenize(prompt, add_special=add_special, parse_special=parse_special)
        else:
            prompt = token_ids(prompt, what="a text or token ids")
        if sampler is None and samplers is None:
            options = {**self.preset.options, **{k: v for k, v in options.items() if v is not None}}
        stops = several_texts("stop", stop)
        return Request(
            prompt,
            make_chain(self.registry, sampler, samplers, options),
            max_tokens=max_tokens,
            stop=stops + tuple(s for s in self.preset.stop if s not in stops),
            seed=int.from_bytes(os.urandom(8), "little") if seed is None else seed,
            logprobs=logprobs,
            prompt_logprobs=prompt_logprobs,
            want=want,
            context=self.context if context is None else make_context(context, self.registry),
            n_keep=n_keep,
            ignore_end=ignore_end,
            spell_special=spell_special,
            adapter=adapter,
            priority=priority,
            salt=salt,
        )

    def logits(self, prompt: Prompt) -> F32:
        """Raw logits after every token of ``prompt``: float32 ``(n, n_vocab)``."""
        return self._once(prompt, "logits")

    def hidden(self, prompt: Prompt) -> F32:
        """Hidden states after the output norm, for every token of ``prompt``: float32 ``(n, n_embd)``."""
        return self._once(prompt, "hidden")

    def embed(self, texts: Sequence[Prompt], *, pooling: str | None = None) -> F32:
        """A vector of length 1 for each text: float32 ``(k, n_embd)``. Texts end with the end token where the file
        asks for one.

        Args:
            pooling: ``mean``, ``first`` or ``last``; by default what the file says, else the mean.
        """
        kind = pooling_of(self, pooling)
        given = several("texts", texts)
        found = np.empty((len(given), self.config.n_embd), np.float32)
        prompts = (self.tokenize(text) if isinstance(text, str) else token_ids(text) for text in given)
        start = 0
        for group in in_groups(prompts, self.config.n_ctx):
            for piece in self.stream([Request(tokens, want="hidden") for tokens in group]):
                assert piece.rows is not None
                found[start + piece.sequence] = pooled(piece.rows, kind)
            start += len(group)
        return found

    def _once(self, prompt: Prompt, want: Wanted) -> F32:
        tokens = self.tokenize(prompt) if isinstance(prompt, str) else prompt
        (piece,) = self.stream([Request(tokens, want=want)])
        assert piece.rows is not None
        return piece.rows

    def stream(self, requests: Sequence[Request], prompt_cache: PromptCache | None = None) -> Iterator[Piece]:
        """Continue requests together, each the ``sequence`` of its place; the first error of any is raised.

        With a ``prompt_cache`` beginnings that it knows are not read again, and what is read is kept there.
        """
        with closing(self.together(requests, prompt_cache)) as pieces:
            for piece in pieces:
                if piece.error is not None:
                    raise piece.error
                yield piece

    def together(self, requests: Sequence[Request], prompt_cache: PromptCache | None = None) -> Generator[Piece]:
        """The same, with errors as pieces: what fails in one text ends that one."""
        requests = several("requests", requests)
        for request in requests:
            check_option("requests", request, kind=Request)
        if not requests:
            return
        needed = [min(self.config.n_ctx, request.most_tokens) for request in requests]
        if prompt_cache is not None:
            needed += [prompt_cache.n_known(self, request.prompt) for request in requests]
        n_ctx = min(self.config.n_ctx, max(needed))
        session = self.session(n_ctx=n_ctx, max_tokens=sum(needed) + PAGE_SIZE * len(needed))
        with Scheduler(session, reuse=prompt_cache is not None, drafting=self.drafting) as scheduler:
            if prompt_cache is not None:
                for request in requests:
                    prompt_cache.recall(scheduler, request.prompt)
            numbers = [scheduler.add(request) for request in requests]
            places = {number: i for i, number in enumerate(numbers)}
            for piece in scheduler.run():
                piece.sequence = places[piece.sequence]
                yield piece
            if prompt_cache is not None:
                for request in requests:
                    prompt_cache.remember(scheduler, request.prompt)


@documented
def load(
    model: str | os.PathLike[str] | None = None,
    *,
    backend: str | None = None,
    n_ctx: int | None = None,
    kv_type: str = HALF,
    n_threads: int | None = None,
    pack: bool | None = None,
    gradual: bool | None = None,
    pin: bool = False,
    batch_invariant: bool = False,
    on_error: Policy = "strict",
    speculate: str | None = None,
    stages: int | Literal["auto"] = 1,
    context: str = "error",
    ignore_keys: Sequence[str] = (),
    memory_limit: int | None = None,
    layers: range | None = None,
    preset: Preset | None = None,
    progress: Progress | None = None,
    registry: Registry | None = None,
) -> LanguageModel:
    """Load a model; use it as a context manager, or `close` it.

    Args:
        model: a path or a source's name; None for the built-in model of an installed source.
        {options}
        layers: the layers to bind and read, by default all; see `Model` for what uses a part.
        preset: `LanguageModel.preset`; by default what the source of the model has set.
        progress: called with bytes done and bytes in all while a model is fetched, and while weights are packed.
        registry: plugins to use; None for all that are installed.

    Raises:
        SisError: the model cannot be found, read or run faithfully; the message says why and what to do.
    """
    check_option("model", model, kind=(str, os.PathLike), optional=True)
    check_option("layers", layers, kind=range, optional=True)
    check_option("preset", preset, kind=Preset, optional=True)
    check_option("progress", progress, kind=Callable, optional=True)
    check_option("registry", registry, kind=Registry, optional=True)
    options = LoadOptions(
        backend=backend, n_ctx=n_ctx, kv_type=kv_type, n_threads=n_threads, pack=pack, gradual=gradual, pin=pin,
        batch_invariant=batch_invariant, on_error=on_error, speculate=speculate, stages=stages,
        context=context, ignore_keys=several_texts("ignore_keys", ignore_keys), memory_limit=memory_limit,
    )  # fmt: skip
    registry = registry or Registry.load()
    drafting, at_end = make_drafting(registry, options.speculate), make_context(options.context, registry)
    reference = None if model is None else os.fspath(model)
    sources = registry.sources_for(reference)
    path = resolve(reference, sources, progress)
    preset = usable(preset_for(reference, sources) if preset is None else preset, registry, str(path))
    loaded = open_model(
        LanguageModel, path, registry, backend=options.backend, n_ctx=options.n_ctx or preset.n_ctx,
        options=options.for_backends(progress), degrade=options.on_error == "degrade",
        memory_limit=options.memory_limit, ignored=options.ignore_keys, layers=layers,
        elsewhere=in_stages(path, options, preset, registry),
    )  # fmt: skip
    loaded.on_error, loaded.preset, loaded.drafting, loaded.context = options.on_error, preset, drafting, at_end
    try:
        drafting.check(loaded)
    except BaseException:
        loaded.close()
        raise
    return loaded
