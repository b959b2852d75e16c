"""Models: memory limits, sharing a file between backends, and what closing frees."""

from __future__ import annotations

import gc
import logging
from pathlib import Path

import numpy as np
import psutil
import pytest
import sis_llama
from tiny_models import metadata, tensors, write_model

from sis_core.backend import BackendOptions
from sis_core.errors import BackendError, ClosedError, FormatError, MemoryLimitError, PluginError
from sis_core.gguf_file.writer import GGUFWriter
from sis_core.loading.model import Model
from sis_core.loading.open import open_model
from sis_core.registry import Registry
from sis_core.step import Batch

MIB = 1 << 20


@pytest.fixture
def registry() -> Registry:
    return Registry.of(sis_llama)


def test_what_does_not_fit_is_refused_with_the_sum(tmp_path: Path, registry: Registry) -> None:
    path = write_model(tmp_path / "m.gguf", metadata(llama__context_length=1 << 20))
    with pytest.raises(
        MemoryLimitError, match=r"needs in place .* \+ cache 128 \+ working .* = .* MiB, but 64 MiB are free.*--ctx"
    ):
        open_model(Model, path, registry, n_ctx=1 << 20, memory_limit=64 * MIB)


def test_the_context_is_cut_to_fit(tmp_path: Path, registry: Registry, caplog: pytest.LogCaptureFixture) -> None:
    path = write_model(tmp_path / "m.gguf", metadata(llama__context_length=1 << 20))
    with caplog.at_level(logging.WARNING), open_model(Model, path, registry, memory_limit=64 * MIB) as model:
        assert 1000 < model.config.n_ctx < 1 << 20
        assert model.config.n_ctx_train == 1 << 20
        assert model.forward.cache_nbytes("f16", model.config.n_ctx) < 64 * MIB
    assert "context cut from 1048576 to" in caplog.text


def test_a_machine_without_memory_is_refused(random_model: Path, registry: Registry) -> None:
    with pytest.raises(MemoryLimitError, match="but 0 MiB are free"):
        open_model(Model, random_model, registry, memory_limit=1000)


def test_with_backend_shares_the_file(random_model: Path, registry: Registry) -> None:
    first = open_model(Model, random_model, registry)
    second = first.with_backend("stub")
    assert (first.backend, second.backend) == ("numpy", "stub")
    first.close()
    assert second.step(Batch.of([1, 2]), second.new_cache(32)).values.shape == (1, 260)
    second.close()
    with pytest.raises(ClosedError):
        second.new_cache(32)
    with pytest.raises(ClosedError):
        second.file.raw("output.weight")


@pytest.mark.parametrize("backend", ["numpy", "x86"])
def test_closing_frees_memory_and_mapping(backend: str, tmp_path: Path) -> None:
    parts = [sis_llama, *([pytest.importorskip("sis_x86")] if backend == "x86" else [])]
    weights = tensors()
    weights["token_embd.weight"] = np.zeros((500_000, 32), np.float32)
    weights["output.weight"] = np.ones((500_000, 32), np.float32)
    values = metadata(tokenizer__ggml__tokens=None, tokenizer__ggml__token_type=None, llama__context_length=1 << 16)
    path = write_model(tmp_path / "large.gguf", values, weights)
    process = psutil.Process()

    def mapped() -> bool:
        return any(m.path == str(path) for m in process.memory_maps())

    options = BackendOptions(kv_type="f32", pack=False)
    at_first = process.memory_info().rss
    model = open_model(Model, path, Registry.of(*parts), backend=backend, options=options)
    assert mapped() == (backend == "x86")  # numpy reads rows, so that nobody can cut the file under it
    cache = model.new_cache(1 << 16)
    model.step(Batch.of([1] * 512), cache)
    before = process.memory_info().rss
    del cache
    model.close()
    gc.collect()
    assert not mapped()
    held = before - at_first if backend == "numpy" else before - process.memory_info().rss
    assert (held > 60 * MIB) == (backend == "x86")  # numpy held a panel of rows, and no more


def test_unknown_backends_and_architectures(random_model: Path, tmp_path: Path, registry: Registry) -> None:
    with pytest.raises(
        PluginError, match=r"--backend: no installed plugin brings the backend 'neon'\. `pip install sis-neon`"
    ):
        open_model(Model, random_model, registry, backend="neon")
    path = write_model(
        tmp_path / "m.gguf",
        {k.replace("llama.", "gpt2."): v for k, v in metadata(general__architecture="gpt2").items()},
    )
    with pytest.raises(
        PluginError, match=r"m\.gguf: no installed plugin brings the architecture 'gpt2'\. `pip install sis-gpt2`"
    ):
        open_model(Model, path, registry)


def test_an_idle_backend_says_why(random_model: Path) -> None:
    from types import SimpleNamespace

    from sis_core import hookimpl
    from sis_core.backend import Backend

    class Idle(Backend):
        name, score = "idle", 50

        def idle_reason(self) -> str:
            return "this CPU lacks it"

    registry = Registry.of(sis_llama, SimpleNamespace(sis_register_backends=hookimpl(lambda: [Idle()])))
    with pytest.raises(BackendError, match="backend idle: cannot work here: this CPU lacks it"):
        open_model(Model, random_model, registry, backend="idle")
    with open_model(Model, random_model, registry) as model:
        assert model.backend == "numpy"


def foreign(path: Path, n_bytes: int | None = None) -> Path:
    """A model whose output weight is in a format that GGUF has no id for."""
    writer = GGUFWriter(path, metadata())
    for name, array in tensors().items():
        if name == "output.weight":
            size = n_bytes or array.size // 2
            writer.add_tensor(name, array.shape, "HALF8", [bytes(size)], n_bytes=size, package="sis-half8")
        else:
            writer.add_tensor(name, array.shape, "F32", [array])
    writer.write()
    return path


def test_a_foreign_format_names_its_package(tmp_path: Path, registry: Registry) -> None:
    with pytest.raises(
        FormatError, match=r"tensor output\.weight: its format 'HALF8' is not installed.*'sis-half8' brings it"
    ):
        open_model(Model, foreign(tmp_path / "m.gguf"), registry)


def test_a_foreign_format_of_another_size_is_refused(tmp_path: Path) -> None:
    from types import SimpleNamespace

    from sis_core import hookimpl
    from sis_core.quant import BlockFormat

    class Half8(BlockFormat):
        name, block_size, type_size = "HALF8", 32, 16

        def dequantize_blocks(self, blocks):  # type: ignore[no-untyped-def]
            return np.repeat(blocks, 2, -1).astype(np.float32)

    plugin = SimpleNamespace(sis_register_quant_formats=hookimpl(lambda: [Half8()]))
    registry = Registry.of(sis_llama, plugin)
    with open_model(Model, foreign(tmp_path / "good.gguf"), registry) as model:
        assert np.isfinite(model.step(Batch.of([1]), model.new_cache(32)).values).all()
    with pytest.raises(
        FormatError, match=r"tensor output\.weight: has 4096 bytes, but \(260, 32\) in HALF8 takes 4160"
    ):
        open_model(Model, foreign(tmp_path / "bad.gguf", 4096), registry)


def test_the_memory_limit_holds_for_caches(random_model: Path, registry: Registry) -> None:
    with open_model(Model, random_model, registry, memory_limit=32 * MIB) as model:
        for one in (model, model.with_backend("numpy")):
            with pytest.raises(
                MemoryLimitError, match=r"a cache of 4000000 tokens: needs cache .* but 32 MiB are free"
            ):
                one.new_cache(4_000_000)


def test_overlapping_limits_of_blas_threads_end_where_they_began() -> None:
    from threadpoolctl import threadpool_info

    from sis_core.backends.numpy.blas import BlasThreads

    def threads() -> list[int]:
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    before, shared = threads(), BlasThreads()
    first, second = shared.limited(1), shared.limited(2)
    first.__enter__()
    second.__enter__()
    assert set(threads()) == {1}
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    assert threads() == before


def test_an_interrupted_close_can_be_repeated() -> None:
    from sis_core.loading.gate import Gate

    freed: list[str] = []
    gate = Gate("thing", lambda: freed.append("once"))
    with gate:
        gate._lock.wait_for = lambda _: (_ for _ in ()).throw(KeyboardInterrupt)  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            gate.close()
        del gate._lock.wait_for
        gate.close()
        assert not freed  # the ground stays while its thread is inside
    gate.close()
    assert freed == ["once"]


def test_closing_unmaps_a_file_whose_parts_were_cut(tmp_path: Path) -> None:
    import sis_gpt2
    from random_model import write_model as write_random
    from shapes import SHAPES

    path = tmp_path / "gpt2.gguf"  # its fused biases are cut into three when it is loaded
    write_random(SHAPES["gpt2"].scaled_down(), path, seed=1)
    model = open_model(Model, path, Registry.of(sis_gpt2), backend="numpy")
    model.step(Batch.of([1, 2, 3]), model.new_cache(32))
    model.close()
    gc.collect()
    assert not any(m.path == str(path) for m in psutil.Process().memory_maps())


def test_more_context_than_trained_is_a_warning(
    random_model: Path, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), open_model(Model, random_model, registry, n_ctx=500) as model:
        assert model.config.n_ctx == 500
    assert "trained for 128 tokens, asked for 500" in caplog.text


def test_ctrl_c_on_the_way_out_of_a_step() -> None:
    """Whoever was interrupted before it could say that it left does not wait for itself."""
    from sis_core.loading.gate import Gate

    freed: list[str] = []
    gate = Gate("thing", lambda: freed.append("once"))
    gate.__enter__()  # and never left
    with gate:
        pass
    gate.__enter__()
    gate.close()
    with pytest.raises(ClosedError):
        gate.__enter__()
    assert freed == ["once"]
