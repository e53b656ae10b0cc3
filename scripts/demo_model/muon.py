"""The Muon optimiser for matrices: momentum, made orthogonal by a Newton-Schulz iteration, as the step."""

import torch


def orthogonal(matrix, iterations=5):
    """About the nearest semi-orthogonal matrix; bf16 products, with the coefficients of the published iteration."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix.to(torch.bfloat16)
    flip = x.shape[0] > x.shape[1]
    x = (x.T if flip else x).contiguous()
    x = x / (x.float().norm() + 1e-7).to(torch.bfloat16)
    for _ in range(iterations):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if flip else x).float()


class Muon(torch.optim.Optimizer):
    def __init__(self, parameters, lr, momentum=0.95):
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(p)
                mean = state["momentum"].lerp_(p.grad, 1 - group["momentum"])
                update = orthogonal(p.grad.lerp(mean, group["momentum"]))
                p.add_(update, alpha=-group["lr"] * max(1.0, p.shape[0] / p.shape[1]) ** 0.5)
