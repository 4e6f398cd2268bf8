"""A run: what a training leaves in its folder, read and written as one."""

from dataclasses import dataclass
from pathlib import Path

from ..model import VAE
from ..store.files import write_json
from ..store.folder import FRAMES_NAME, METRICS_NAME, read_metrics
from .frames import Frames


@dataclass
class Run:
    """A run: its folder, its model (EMA weights), `metrics.json` as a dict, and its frames."""

    directory: Path
    model: VAE
    metrics: dict
    frames: Frames

    @classmethod
    def load(cls, directory: str | Path) -> "Run":
        """Read a run's folder. Raises `FileError` (a `ValueError`) naming the file at fault."""
        directory = Path(directory)
        return cls(
            directory,
            VAE.from_pretrained(directory),
            read_metrics(directory),
            Frames.load(directory / FRAMES_NAME),
        )

    def save(self) -> None:
        """Write everything but the pictures, each file in one step; `metrics.json` comes last."""
        self.model.save_pretrained(self.directory)
        self.frames.save(self.directory / FRAMES_NAME)
        write_json(self.directory / METRICS_NAME, self.metrics)
