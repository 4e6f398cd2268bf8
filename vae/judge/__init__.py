"""The judge: a classifier of digits, and the scores that it gives. It trains no model."""

from .classifier import Judge, JudgeConfig
from .scores import frechet_distance, judge_images, nearest_mse

__all__ = ["Judge", "JudgeConfig", "frechet_distance", "judge_images", "nearest_mse"]
