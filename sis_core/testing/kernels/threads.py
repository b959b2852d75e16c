"""Threads, processes, and what is said of a library."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from sis_core.arrays import F32
from sis_core.backend import BackendOptions
from sis_core.backends.bind import bind
from sis_core.backends.native import NativeBackend, info, read_bandwidth
from sis_core.step import Batch
from sis_core.testing.kernels.shared import Shared
from sis_core.testing.kernels.weights import format_of
from sis_core.testing.networks import VARIANTS, random_network, with_format


class Threads(Shared):
    """The library as a whole."""

    def test_many_python_threads(self, backend: NativeBackend) -> None:
        """Steps of several sessions at once: each gets what it gets alone, and none is left behind."""
        network = random_network(with_format(VARIANTS[0], format_of("Q8_0")))
        forward = bind(network, [backend], BackendOptions(n_threads=3))

        def text(seed: int) -> F32:
            cache, ids = forward.new_cache("f16", 96), np.random.default_rng(seed).integers(0, 96, 80)
            forward.step(Batch.of(ids[:40], outputs=[]), cache)
            return np.concatenate([forward.step(Batch.of([t], position=i), cache).values
                                   for i, t in enumerate(ids.tolist()) if i >= 40])  # fmt: skip

        alone = [text(seed) for seed in range(4)]
        found: list[F32 | None] = [None] * 4

        def work(seed: int) -> None:
            found[seed] = text(seed)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(600)
        assert all(other is not None and np.array_equal(one, other) for one, other in zip(alone, found, strict=True))

    def test_a_forked_child_has_threads_of_its_own(self, backend: NativeBackend) -> None:
        if not hasattr(os, "fork"):
            pytest.skip("this system has no fork")
        program = (
            "import os, warnings, numpy as np\n"
            "from sis_core.backends.native.library import Library\n"
            "from pathlib import Path\n"
            "import sys\n"
            "warnings.simplefilter('ignore')\n"
            "library = Library(Path(sys.argv[1]))\n"
            "data = np.zeros(1 << 22, np.uint8)\n"
            "read = lambda: library.read(data.__array_interface__['data'][0], data.size, 3)\n"
            "read()\n"
            "child = os.fork()\n"
            "read()\n"
            "if child == 0: os._exit(0)\n"
            "assert os.waitpid(child, 0)[1] == 0\n"
        )
        command = [sys.executable, "-c", program, str(backend.library().path)]
        subprocess.run(command, check=True, timeout=600)

    def test_what_doctor_shows(self, backend: NativeBackend) -> None:
        shown = info(backend.library())
        assert shown["isa"] == backend.library().isa_name
        assert shown["note"] == "chosen by SIS_ISA"
        assert shown["threads"] >= 1
        assert shown["isa"] in backend.describe()
        assert 0 < read_bandwidth(backend.library(), mib=16, repeats=2) < 1e13, "nothing is read as fast as that"
