"""A backend that trades memory for speed: every weight is decoded once, at load, instead of at every step."""

from collections.abc import Callable

import numpy as np

from sis_core import hookimpl
from sis_core.backend import Backend, BackendOptions
from sis_core.block import Network
from sis_core.quant import Weight


class Decoded(Backend):
    """All weights in float32, multiplied by numpy."""

    name = "decoded"  # sis generate --backend decoded
    score = 0  # used only when named: it may need eight times the file's memory

    def linear(self, weight: Weight, options: BackendOptions) -> Callable[[np.ndarray], np.ndarray]:
        columns = np.asfortranarray(weight.dequantize().T)  # (n_in, n_out)
        return lambda x: x @ columns  # (n, n_in) -> (n, n_out)

    def memory(self, network: Network, layers: range, options: BackendOptions) -> int:
        return sum(4 * weight.n_rows * weight.n_cols for weight in network.weights(layers))


@hookimpl
def sis_register_backends() -> list[Backend]:
    return [Decoded()]
