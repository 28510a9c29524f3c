"""What tests of memory look at."""

from __future__ import annotations

import torch


class Allocations:
    """What torch's allocator hands out, also to compiled code: the largest piece and the peak of the sum, in bytes."""

    def __enter__(self):
        self.profile = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True)
        self.profile.__enter__()
        return self

    def __exit__(self, *failure):
        self.profile.__exit__(*failure)
        events = [event for event in self.profile.profiler.kineto_results.events() if event.name() == "[memory]"]
        sizes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
        self.largest = max(sizes)
        self.peak = used = 0
        for size in sizes:
            used += size
            self.peak = max(self.peak, used)
