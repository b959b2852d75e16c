"""llama.cpp as a side, through the functions of its C interface. Runs in an interpreter that has llama-cpp-python."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

import numpy as np

from speed import course

FLAGS = ("flash", "plain")  # with and without flash attention
KV_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 8, "bf16": 30}  # numbers of ggml
TOKENS = np.array([(i * 7919 + 13) % 997 + 3 for i in range(course.CHUNK)], np.int32)


class LlamaCpp:
    """One model; a context is made anew when other sequences or more room are asked for."""

    def __init__(self, path: str, n_threads: int, flash: bool, kv_type: str = "f16") -> None:
        import llama_cpp

        self.lib: Any = llama_cpp
        self._quiet = self.lib.llama_log_callback(lambda level, text, data: None)
        self.lib.llama_log_set(self._quiet, ctypes.c_void_p(0))
        self.lib.llama_backend_init()
        params = self.lib.llama_model_default_params()
        params.n_gpu_layers = 0
        self.model = self.lib.llama_model_load_from_file(path.encode(), params)
        if not self.model:
            raise RuntimeError("llama.cpp cannot load this file")
        self._n_threads, self._flash, self._kv_type = n_threads, flash, KV_TYPES[kv_type]
        self._context: Any = None
        self._made = (0, 0)
        self._lengths: list[int] = []
        self._rows = self.lib.llama_batch_init(course.CHUNK, 0, 1)
        fields = {name: getattr(self._rows, name) for name in ("token", "pos", "n_seq_id", "logits")}
        self._view = {name: np.ctypeslib.as_array(field, (course.CHUNK,)) for name, field in fields.items()}
        self._view["n_seq_id"][:] = 1

    @property
    def n_vocab(self) -> int:
        return int(self.lib.llama_vocab_n_tokens(self.lib.llama_model_get_vocab(self.model)))

    def about(self) -> str:
        """Version, and the features of the CPU that this build uses."""
        features = self.lib.llama_print_system_info().decode()
        parts = [part.strip() for part in features.split("|")]
        used = [part.removesuffix(" = 1").split(" : ")[-1] for part in parts if part.endswith("= 1")]
        return f"llama-cpp-python {self.lib.__version__} ({', '.join(used)})"

    def begin(self, n: int, room: int) -> None:
        if self._made == (n, room):
            self.lib.llama_memory_clear(self._memory, True)
        else:
            self._open(n, room)
        self._lengths = [0] * n

    def feed(self, n: int) -> None:
        for at in range(0, n, course.CHUNK):
            self.step(TOKENS[: min(course.CHUNK, n - at)], last=at + course.CHUNK >= n)

    def step(self, tokens: Any, *, last: bool, every: bool = False) -> None:
        """Tokens of sequence 0; logits of the last one, or of every one."""
        n, length, view = len(tokens), self._lengths[0], self._view
        view["token"][:n] = tokens
        view["pos"][:n] = np.arange(length, length + n)
        view["logits"][:n] = every
        view["logits"][n - 1] = last or every
        for i in range(n):
            self._rows.seq_id[i][0] = 0
        self._lengths[0] += n
        self._decode(n)

    def token(self, n: int) -> None:
        view = self._view
        view["token"][:n] = TOKENS[:n]
        view["pos"][:n] = self._lengths
        view["logits"][:n] = 1
        for i in range(n):
            self._rows.seq_id[i][0] = i
        self._lengths = [length + 1 for length in self._lengths]
        self._decode(n)

    def rewind(self, length: int) -> None:
        self.lib.llama_memory_seq_rm(self._memory, 0, length, -1)
        self._lengths[0] = length

    def shares(self) -> Iterator[tuple[str, float]]:
        return iter(())

    def logits(self, n: int) -> Any:
        """(n, n_vocab) of the last step, copied."""
        found = self.lib.llama_get_logits(self._context)
        return np.ctypeslib.as_array(found, (n, self.n_vocab)).copy()

    @property
    def _memory(self) -> Any:
        return self.lib.llama_get_memory(self._context)

    def _open(self, n: int, room: int) -> None:
        if self._context:
            self.lib.llama_free(self._context)
        params = self.lib.llama_context_default_params()
        params.n_ctx, params.n_seq_max = n * room, n
        params.n_batch = params.n_ubatch = course.CHUNK
        params.n_threads = params.n_threads_batch = self._n_threads
        params.flash_attn_type = int(self._flash)
        params.type_k = params.type_v = self._kv_type
        self._context = self.lib.llama_init_from_model(self.model, params)
        if not self._context:
            raise RuntimeError("llama.cpp cannot make a context of that size")
        self._made = (n, room)

    def _decode(self, n: int) -> None:
        self._rows.n_tokens = n
        if self.lib.llama_decode(self._context, self._rows):
            raise RuntimeError("llama_decode failed")
        self.lib.llama_synchronize(self._context)


def main() -> None:
    asked = course.request()
    opened: list[LlamaCpp] = []

    def engine() -> LlamaCpp:
        opened.append(LlamaCpp(asked["path"], asked["n_threads"], asked["flag"] == "flash"))
        return opened[0]

    import llama_cpp  # noqa: F401 - loading starts after imports

    course.run(engine, asked["rows"])
    course.say(about=opened[0].about())


if __name__ == "__main__":
    main()
