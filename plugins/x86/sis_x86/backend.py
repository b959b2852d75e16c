"""The backend's name and where its library lies; everything else is shared by all native backends."""

from __future__ import annotations

import platform

from sis_core.backends.native import NativeBackend


class X86Backend(NativeBackend):
    """Native kernels for x86-64."""

    name = "x86"
    score = 100
    package = "sis_x86"

    def idle_reason(self) -> str | None:
        if platform.machine() not in ("x86_64", "AMD64"):
            return f"this machine is {platform.machine()}, not x86_64"
        if reason := super().idle_reason():
            return reason
        library = self.library()
        if library.isa_name == "portable" and "SIS_ISA" not in library.isa_reason:
            return "the processor has no AVX2"
        return None
