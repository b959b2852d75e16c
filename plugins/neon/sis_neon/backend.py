"""The backend's name and where its library lies; everything else is shared by all native backends."""

from __future__ import annotations

import platform

from sis_core.backends.native import NativeBackend


class NeonBackend(NativeBackend):
    """Native kernels for 64-bit ARM."""

    name = "neon"
    score = 100
    package = "sis_neon"

    def idle_reason(self) -> str | None:
        if platform.machine() not in ("aarch64", "arm64", "ARM64"):
            return f"this machine is {platform.machine()}, not aarch64"
        return super().idle_reason()
