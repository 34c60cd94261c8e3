import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    """The heads of these tests are tiny: several threads would make them slower, above all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
