"""A progress bar that nobody has to read."""

import sys

from tqdm.auto import tqdm


class Bar(tqdm):
    """tqdm's bar, which stops, and not the work, when stderr is closed, full or not there."""

    def __init__(self, *args, disable: bool = False, **kwargs):
        try:
            super().__init__(*args, disable=disable or sys.stderr is None, **kwargs)
        except (OSError, ValueError):
            super().__init__(*args, disable=True, **kwargs)

    def display(self, *args, **kwargs) -> bool | None:
        """Draw the bar, where somebody reads it still."""
        try:
            return super().display(*args, **kwargs)
        except (OSError, ValueError):  # a pipe without a reader; a closed file
            self.disable = True
