"""Run by an interpreter that has llama-cpp-python: one JSON request a line in, one JSON answer a line out.

It imports nothing of sis, so that the peer lives in an environment of its own.
"""

import ctypes
import json
import random
import sys
import time
from typing import Any


def open_model(llama: Any, request: Any) -> tuple[Any, Any]:
    """Load the file with llama.cpp, quietly."""
    llama.llama_backend_init()
    quiet = llama.llama_log_callback(lambda level, text, data: None)
    llama.llama_log_set(quiet, ctypes.c_void_p(0))
    params = llama.llama_model_default_params()
    params.n_gpu_layers = 0
    load = getattr(llama, "llama_model_load_from_file", None) or llama.llama_load_model_from_file
    model = load(request["path"].encode(), params)
    if not model:
        raise RuntimeError("llama.cpp cannot load this file")
    return model, quiet


def sample(llama: Any, model: Any, request: Any) -> float:
    """Seconds that one run of the request took."""
    n, batch, depth, threads = (request[key] for key in ("n", "batch", "depth", "n_threads"))
    params = llama.llama_context_default_params()
    params.n_ctx = batch * (n + depth + 32)
    params.n_batch = max(512, batch)
    params.n_ubatch = 512
    params.n_seq_max = batch
    params.n_threads = params.n_threads_batch = threads
    create = getattr(llama, "llama_init_from_model", None) or llama.llama_new_context_with_model
    ctx = create(model, params)
    if not ctx:
        raise RuntimeError("llama.cpp cannot make a context of that size")
    size = params.n_batch
    rows = llama.llama_batch_init(size, 0, 1)
    vocab = llama.llama_model_get_vocab(model)
    n_vocab = llama.llama_vocab_n_tokens(vocab)
    chance = random.Random(0)

    def run(entries: list[tuple[int, int, bool]]) -> None:
        for at in range(0, len(entries), size):
            part = entries[at : at + size]
            rows.n_tokens = len(part)
            for i, (sequence, position, last) in enumerate(part):
                rows.token[i] = chance.randrange(n_vocab)
                rows.pos[i] = position
                rows.n_seq_id[i] = 1
                rows.seq_id[i][0] = sequence
                rows.logits[i] = last
            if llama.llama_decode(ctx, rows):
                raise RuntimeError("llama_decode failed")
        llama.llama_synchronize(ctx)

    def prompt(start: int, length: int) -> None:
        run([(s, start + i, i == length - 1) for s in range(batch) for i in range(length)])

    try:
        prompt(0, depth or 1)
        if not depth:  # that was the warm-up; begin again
            llama.llama_memory_clear(llama.llama_get_memory(ctx), True)
        started = time.perf_counter()
        if request["kind"] == "pp":
            prompt(depth, n)
        else:
            for i in range(n):
                run([(s, depth + i, True) for s in range(batch)])
        return float(n * batch) / (time.perf_counter() - started)
    finally:
        llama.llama_batch_free(rows)
        llama.llama_free(ctx)


def main() -> None:
    """Answer requests from standard input, one JSON object a line."""
    try:
        import llama_cpp  # type: ignore[import-not-found, unused-ignore]

        llama = getattr(llama_cpp, "llama_cpp", llama_cpp)
        version = getattr(llama_cpp, "__version__", "?")
    except Exception as error:
        print(json.dumps({"error": f"llama-cpp-python cannot be imported: {error}"}), flush=True)
        return
    print(json.dumps({"version": version}), flush=True)
    model = quiet = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if model is None:
                model, quiet = open_model(llama, request)
            answer: dict[str, object] = {"sample": sample(llama, model, request)}
        except Exception as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)
    del quiet


if __name__ == "__main__":
    main()
