"""Every error a user can meet. Each says where it happened, what was wrong, and what to do next."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.resources import files
from typing import Any

FOREIGN = (Exception, SystemExit)
"""What a stranger's code may raise, to be named for it: `sys.exit` in a plugin does not end the program unseen."""


class SisError(Exception):
    """Base of all errors that sis raises on purpose.

    Args:
        what: what is wrong, in one clause.
        where: the place: a file, tensor, key, plugin or option.
        fix: what the reader can do about it, in one clause.
    """

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        self.what, self.where, self.fix = what, where, fix
        super().__init__(what, where, fix)

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}. {self.fix[:1].upper()}{self.fix[1:]}" if self.fix else text

    def __reduce__(self) -> tuple[Any, ...]:
        """So that it can be raised on one machine and shown on another."""
        return partial(type(self), where=self.where, fix=self.fix), (self.what,)


class SourceError(SisError):
    """A model that cannot be found, read or verified."""


class GGUFError(SisError):
    """A file that breaks the rules of GGUF."""


class ModelError(SisError):
    """Metadata or tensors that no installed model family can run faithfully."""


class FormatError(SisError):
    """A quantisation format that is missing, unknown or misbehaves."""


class TokenizerError(SisError):
    """A vocabulary that contradicts itself, or text and token ids it cannot map."""


class SamplerError(SisError):
    """A sampler option out of range, or logits that leave no token to choose."""


class BackendError(SisError):
    """A backend that is missing, refuses the model, or fails in a step."""


class ChatError(SisError):
    """Messages, a template or a reply that a chat format cannot express or allow."""


class PluginError(SisError):
    """A plugin that is missing, broken, too old, or clashes with another."""


class ContextError(SisError):
    """A text longer than the context, or a position that is not next in its sequence."""


class MemoryLimitError(SisError):
    """A model or cache that does not fit into memory; the message carries the sum."""


class ClosedError(SisError):
    """Use of a model, session or file after it was closed."""


class LostError(SisError):
    """A process or a machine that ended in the middle of its work, with all that it kept; it may come back without."""


@contextmanager
def blaming(kind: type[SisError], who: str, where: str = "") -> Iterator[None]:
    """Turn what a stranger's code raises into an error of ``kind`` that names whose code it was; ours pass through."""
    try:
        yield
    except (SisError, MemoryError):
        raise
    except FOREIGN as error:
        raise blamed(kind, who, error, where) from error


def blamed(kind: type[SisError], who: str, error: BaseException, where: str = "") -> SisError:
    """The error of `blaming`, of ``kind``, for what a stranger's code raised."""
    fix = "tell its author, or leave its plugin out with SIS_DISABLED_PLUGINS"
    return kind(f"{who} failed: {type(error).__name__}: {error}", where=where, fix=fix)


def package_for(kind: str, name: str) -> str | None:
    """The distribution known to bring ``name`` of a kind (``quant_formats``, ``architectures`` …), or None."""
    table = tomllib.loads(files("sis_core").joinpath("catalogue.toml").read_text("utf-8"))
    found = table.get(kind, {}).get(name)
    return found if isinstance(found, str) else None


def suggest(name: str, known: list[str]) -> str:
    """`` (did you mean …?)`` when something installed is spelt nearly so, else nothing."""
    close = difflib.get_close_matches(name, known, 1)
    return f" (did you mean {close[0]!r}?)" if close else ""
