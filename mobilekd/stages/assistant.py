"""Distil the teacher into a network of middle size that teaches the student (https://arxiv.org/abs/1902.03393)."""

from mobilekd import artifacts
from mobilekd.stages.distill import Distill


class Assistant(Distill):
    """Options of the teacher assistant: those of `distill`. The stages after it read it as their teacher."""

    makes = artifacts.Teacher
