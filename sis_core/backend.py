"""What a backend is: the protocols that it answers with, at three grains, and the options that it is asked with.

A backend may answer with one linear, one layer, or a whole forward, each optional, each faster than the one before.
None means "not mine": the next backend is asked, and the numpy reference answers what is left.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Protocol

from attrs import frozen

from sis_core.arrays import F32
from sis_core.block import Block, Network
from sis_core.quant import Weight
from sis_core.source import Progress
from sis_core.step import Batch, Output, Plan


class Cache(Protocol):
    """What a model remembers of its sequences: made by the backend, owned by one session, opaque to everyone else.

    A sequence can go back only to beginnings that `reach` names: any for plain keys and values, those whose window is
    still kept for layers with a window, a `mark` for states that sum up a text. Every sequence can go back to nothing.
    """

    @property
    def nbytes(self) -> int:
        """Bytes in use now; a prefix that sequences share counts once."""

    @property
    def n_free(self) -> int:
        """Tokens that there is still room for, in whole pages: a sequence takes pages of its own from its end on."""

    def length(self, sequence: int) -> int:
        """Tokens kept of a sequence; 0 for an unknown one."""

    def reach(self, sequence: int, n: int) -> int:
        """Length of the longest beginning, of at most ``n`` tokens, that the sequence can go back to; 0 at worst."""

    def truncate(self, sequence: int, n: int) -> None:
        """Forget all but the first ``n`` tokens; ContextError unless ``reach(sequence, n) == n``."""

    def fork(self, source: int, target: int, n: int) -> None:
        """Make ``target`` begin with the first ``n`` tokens of ``source``: shared, copied when one of them writes.

        ContextError unless ``reach(source, n) == n``.
        """

    def mark(self, sequence: int) -> None:
        """Keep a way back to what the sequence is now, until it is shortened to less or dropped.

        It costs nothing where everything is kept anyway. A sequence has few marks, and the oldest gives way: also to
        tokens that find no other room.
        """

    def evict(self, sequence: int, pages: Iterable[int], windowed: bool = False) -> None:
        """Give back pages of a sequence, whole ones of `sis_core.cache.pages.PAGE_SIZE` tokens by their numbers in the
        text: what follows does not see them. Those that were given back before are no error.

        It concerns layers that look at the whole text, and with ``windowed`` those that have a window of their own too.
        A sequence can then go back to no less than it is now, except to what lies before the first of these pages.
        ContextError for a page that the sequence does not fill.
        """

    def whole(self, sequence: int) -> int:
        """Tokens of a sequence before the first page that `evict` gave back: all, where it gave back none."""

    def n_evicted(self, sequence: int) -> int:
        """Tokens in the pages of a sequence that `evict` gave back."""

    def drop(self, sequence: int) -> None:
        """Forget a sequence; an unknown one is no error."""

    def save(self, sequence: int) -> Iterator[bytes]:
        """The sequence's state, page by page, as bytes that `load` of the same model, backend and kv_type understands.

        The sequence must not change before the last page was taken.
        """

    def load(self, sequence: int, data: Iterable[bytes]) -> None:
        """Replace a sequence by a saved state, in pieces of any size.

        Raises:
            BackendError: the bytes are not such a state. After an error the sequence is empty, or as it was.
            MemoryLimitError: there is no room.
        """


class Forward(Protocol):
    """A backend's answer for a range of layers. Thread-safe: all that changes lies in the cache."""

    @property
    def layers(self) -> range: ...

    @property
    def grains(self) -> tuple[str, ...]:
        """Who runs each layer, one word each, for `sis doctor`."""

    @property
    def batch_invariant(self) -> bool:
        """Whether no row's result depends on the rows beside it, to the bit. Where it does and that was asked for, rows
        are fed one by one."""

    def new_cache(self, kv_type: str, max_tokens: int) -> Cache:
        """An empty cache for up to ``max_tokens`` tokens over all sequences; ``kv_type`` is one of `KV_TYPES`"""

    def cache_nbytes(self, kv_type: str, max_tokens: int) -> int:
        """Bytes that such a cache takes when it is full."""

    def step(self, batch: Batch, cache: Cache) -> Output:
        """Run one step. All or nothing: after an exception the cache is as it was before."""


class Linear(Protocol):
    """A weight bound by a backend: ``(n, n_in)`` float32 to ``(n, n_out)``. Thread-safe."""

    def __call__(self, x: F32) -> F32: ...


class LayerState(Protocol):
    """The paged storage of one layer, in its backend's own layout."""

    @property
    def page_nbytes(self) -> int: ...

    def copy_page(self, source: int, target: int) -> None:
        """Copy what a page holds, for copy on write."""

    def save_page(self, page: int) -> bytes: ...

    def load_page(self, page: int, data: bytes) -> None: ...


class Layer(Protocol):
    """A block bound by a backend: one call a layer. Thread-safe."""

    def new_state(self, kv_type: str, n_pages: int, page_size: int) -> LayerState | None:
        """Storage for this layer; memory is taken when pages are first written. None for a layer without state."""

    def __call__(self, hidden: F32, plan: Plan, state: Any) -> F32:
        """``(n, n_embd)`` to ``(n, n_embd)``; writes the rows' keys and values to their slots, then attends."""


@frozen
class BackendOptions:
    """What the user chose for arithmetic.

    Attributes:
        n_threads: threads a step may use; None lets the backend decide.
        pack: True to copy weights into the backend's layout, False to read them in place, None to pack when memory
            allows.
        gradual: True to pack in the first steps, reading in place what has not been packed, False to pack at load, None
            to pack at load only when ``pack`` was asked for.
        decode: weights in formats that only Python can decode: True to decode them at load, False to decode panels in
            each step, None to decode them at load when memory allows.
        pin: True to keep each thread on a core of its own, where the system can.
        batch_invariant: results must not depend on which other rows share a step; see `sis_core.backends.row_by_row`.
        kv_type: the cache type that sessions will ask for; a backend that cannot keep it answers None.
        progress: called with bytes done and bytes in all while weights are packed.
    """

    n_threads: int | None = None
    pack: bool | None = None
    gradual: bool | None = None
    decode: bool | None = None
    pin: bool = False
    batch_invariant: bool = False
    kv_type: str = "f16"
    progress: Progress | None = None


@frozen
class Handling:
    """How a backend runs a weight, for `sis doctor`.

    Attributes:
        way: in a few words, such as "decoded in each step"; where that is not the best way, with the reason.
        nbytes: what it then takes: a step reads all of it, of experts those that are used.
    """

    way: str
    nbytes: int


class Backend:
    """Base of all backends; a subclass overrides the grains it offers. Instances are immutable and thread-safe.

    Attributes:
        name: unique among backends.
        score: who is asked first; 0 or less is used only when named.
    """

    name: ClassVar[str]
    score: ClassVar[int] = 0

    def idle_reason(self) -> str | None:
        """One line why this backend cannot work on this machine, or None when it can."""
        return None

    def describe(self) -> str:
        """One line on what this backend uses here (instruction set, threads …), for `sis doctor`."""
        return (type(self).__doc__ or "").strip().partition("\n")[0]

    @property
    def instructions(self) -> str:
        """The instruction set that results depend on, in their last bits; empty where they depend on none."""
        return ""

    def forward(self, network: Network, layers: range, options: BackendOptions) -> Forward | None:
        """The whole range of layers at once, or None."""
        return None

    def layer(self, block: Block, options: BackendOptions) -> Layer | None:
        """One block, or None when it has an op, a field value or a state that this backend does not know."""
        return None

    def linear(self, weight: Weight, options: BackendOptions) -> Linear | None:
        """One weight, or None when this backend does not know its format."""
        return None

    def knows(self, record: Network | Block | Weight, options: BackendOptions) -> bool:
        """Whether `forward` (of all layers), `layer` or `linear`, whichever takes the record, would bind it.

        By default these are asked, which may cost time and memory: what they answer is dropped. A backend that copies
        weights does better to answer without.
        """
        match record:
            case Network():
                offered = type(self).forward is not Backend.forward
                return offered and self.forward(record, range(record.n_layer), options) is not None
            case Block():
                return type(self).layer is not Backend.layer and self.layer(record, options) is not None
            case _:
                return type(self).linear is not Backend.linear and self.linear(record, options) is not None

    def handling(self, weight: Weight, options: BackendOptions) -> Handling | None:
        """How a matrix or a stack of them would run, with nothing bound; None where this backend does not say."""
        return None

    def memory(self, network: Network, layers: range, options: BackendOptions) -> int:
        """Bytes of anonymous memory that binding these layers of ``network`` will take for weights, beside the file and
        the cache: with the embedding before the first and the head after the last, as `Network.weights` lists them."""
        return 0

    def in_place(self, network: Network, layers: range, options: BackendOptions) -> int:
        """Bytes of weights that `memory` does not count: steps read them from the file. All of them, or by default none
        where `memory` counts some."""
        return 0 if self.memory(network, layers, options) else views_nbytes(network.weights(layers))


def views_nbytes(weights: Iterable[Weight]) -> int:
    """Bytes of different views of tensors."""
    views = {(w.name, w.first_row, w.first_col, w.shape): w.nbytes for w in weights}
    return sum(views.values())
