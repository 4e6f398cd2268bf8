"""Whether one thread would train faster than several, as where other programs are at work."""

import math
import time
from collections.abc import Callable

import torch

SLOWER = 1.5  # times what one thread takes, from which a step counts as slow
MOST = 10.0  # as so many of one thread's a step counts at most: this process may have been stopped
LOST = 60.0  # steps of one thread that have to be lost: 5 to 60 seconds of a default training


class Pace:
    """Compares each step with what it takes one thread alone.

    PyTorch's threads wait for each other, and spin meanwhile. Where another program wants a core,
    two of them may have to share one, and keep it from each other: see docs/speed.md.
    """

    def __init__(self):
        self.alone, self.lost = math.inf, 0.0  # seconds of one thread's step; steps of it

    def measure(self, step: Callable) -> bool:
        """Time a `step` with one thread, if there are several. Returns whether it was taken."""
        if (threads := torch.get_num_threads()) == 1:
            return False
        torch.set_num_threads(1)
        try:
            for _ in range(2):  # the first one is slower
                started = time.perf_counter()
                step()
                self.alone = min(self.alone, time.perf_counter() - started)
        finally:
            torch.set_num_threads(threads)
        return True

    def note(self, seconds: float) -> None:
        """Count what a step lost to one thread's; quick ones make up for what slow ones lost."""
        self.lost = max(0.0, self.lost + min(seconds / self.alone, MOST) - SLOWER)

    def advice(self, seconds: float) -> str | None:
        """What to do about steps that take so many `seconds`; once, and only if much was lost."""
        if self.lost < LOST:
            return None
        alone, threads = self.alone, torch.get_num_threads()
        self.alone, self.lost = math.inf, 0.0  # that was all to be said
        took = f"A step takes {seconds:.2g} s with {threads} threads, and {alone:.2g} s with one"
        remedy = "Stop it, and go on with --resume --threads 1 (in a notebook: threads=1)"
        return f"{took}: other programs are at work here. {remedy}."
