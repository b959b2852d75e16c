import numpy as np
import sis_fp8

from sis_core.testing import check_quant_format


def test_contract():
    check_quant_format(sis_fp8.FP8(), max_error=0.03)  # three bits of mantissa, whatever the size of a value


def test_table():
    assert sis_fp8.TABLE[[0x00, 0x01, 0x38, 0x7E, 0xB8]].tolist() == [0, 2**-9, 1, 448, -1]
    assert np.isnan(sis_fp8.TABLE[[0x7F, 0xFF]]).all()
