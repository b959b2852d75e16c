from sis_core.testing.architecture import check_architecture as check_architecture
from sis_core.testing.backend import check_backend as check_backend
from sis_core.testing.sampler import check_sampler as check_sampler
