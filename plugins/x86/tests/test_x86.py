"""The x86 kernels on every rung."""

from __future__ import annotations

from pathlib import Path

import pytest

from sis_core.testing.kernels import KernelSuite, load, on_each_rung

sis_x86 = pytest.importorskip("sis_x86", reason="sis-x86 is for x86-64")
from sis_x86.backend import X86Backend  # noqa: E402

REASON = X86Backend().idle_reason()
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"the x86 backend is idle: {REASON}")

backend = on_each_rung(X86Backend, ("portable", "avx2", "avx_vnni", "avx512_vnni", "avx512_bf16"))


class TestKernels(KernelSuite):
    """Each against the codecs and the reference."""

    bfloats = ("avx512_bf16",)


def test_an_unknown_isa_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    reason = "SIS_ISA is not one of portable, avx2, avx_vnni, avx512_vnni, avx512_bf16, amx"
    library = load(X86Backend, "neon", tmp_path)
    assert library.isa_reason == reason
    assert caplog.messages == [f"SIS_ISA=neon is passed over: {reason}; {library.isa_name} is used"]


def test_an_old_processor_leaves_the_backend_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    library = X86Backend().library()
    monkeypatch.setattr(library, "isa", lambda: b"portable")
    monkeypatch.setattr(library, "isa_note", lambda: b"")
    assert X86Backend().idle_reason() == "the processor has no AVX2"
