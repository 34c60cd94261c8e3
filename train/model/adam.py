"""Adam, without the import of torch's compiler."""

import inspect

import torch


class Adam(torch.optim.Adam):
    """`torch.optim.Adam`, to the last bit. Its first use does not import `torch._dynamo`.

    In torch, these three methods are wrapped for compiled programs, and the wrappers import the compiler: 1.2 s of CPU
    time, 4.6 s without bytecode. `step` computes no gradients, as in the wrapper.
    """

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)
    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))
