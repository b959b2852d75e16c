from sis_core.testing.backend import check_backend as check_backend
