"""Where a step's time goes: torch.profiler's operators in a few groups, as shares of the wall clock."""

import re

from torch.profiler import ProfilerActivity, profile

GROUPS = (
    ("own kernels, convolution and batch norm, backward", r"^_(Convolution|BatchNorm)\w*Backward"),
    ("own kernels, convolution and batch norm, forward", r"^_(Convolution|BatchNorm)"),
    ("convolution, backward", r"conv.*backward"),
    ("convolution, forward", r"conv"),
    ("matrix products", r"::(addmm|mm|bmm|matmul|linear)"),
    ("batch norm, backward", r"batch_norm.*backward"),
    ("batch norm, forward", r"batch_norm"),
    ("ReLU and sums, both ways", r"relu|threshold|clamp_min|::add_?$|::sum$"),
    ("casts, copies, fills", r"::(copy_|clone|fill_|zero_|_to_copy|contiguous)"),
    ("views of the images", r"::(index|flip|where)$"),
    ("optimizer", r"_fused_|_foreach_|Optimizer"),
)
"""The first pattern that an operator's name holds takes it."""
REST, OUTSIDE = "other operators", "between operators (Python, autograd)"
NAMED_OF_REST = 3


class OperatorSplit:
    """Profiles what runs between start and stop."""

    def __init__(self) -> None:
        self._profile = profile(activities=[ProfilerActivity.CPU])

    def start(self) -> None:
        """Begin."""
        self._profile.start()

    def stop(self) -> None:
        """End."""
        self._profile.stop()

    def shares(self, seconds: float) -> dict[str, float]:
        """Return each group's share of `seconds`; the largest operators outside the groups by their own names."""
        shares = dict.fromkeys((name for name, _ in GROUPS), 0.0)
        rest: dict[str, float] = {}
        for event in self._profile.key_averages():
            share = event.self_cpu_time_total / 1e6 / seconds
            group = next((name for name, pattern in GROUPS if re.search(pattern, event.key)), None)
            if group:
                shares[group] += share
            else:
                rest[event.key] = rest.get(event.key, 0.0) + share
        largest = sorted(rest, key=lambda key: -rest[key])[:NAMED_OF_REST]
        shares |= {key: rest[key] for key in largest}
        shares[REST] = sum(share for key, share in rest.items() if key not in largest)
        shares[OUTSIDE] = 1 - sum(shares.values())
        return shares
