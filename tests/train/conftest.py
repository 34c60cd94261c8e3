import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    """The tests' heads are tiny: threads would cost more than they bring, above all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
