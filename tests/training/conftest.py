import pytest
import torch

from tests.training import tiny_set


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory):
    """The folder of the tiny training set; read it, do not change it."""
    return tiny_set.write(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def one_thread():
    """Sums of several threads come in any order; bit-equal runs need one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
