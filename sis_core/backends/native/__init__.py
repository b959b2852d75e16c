"""Native arithmetic: opens a plugin's library of kernels and runs networks on it. See `include/sis/program.h`."""

from sis_core.backends.native.backend import NativeBackend
from sis_core.backends.native.library import Library, info, open_library, read_bandwidth
from sis_core.machine.cores import default_threads

__all__ = ["Library", "NativeBackend", "default_threads", "info", "open_library", "read_bandwidth"]
