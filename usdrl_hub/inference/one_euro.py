"""The One-Euro filter (Casiez et al., CHI 2012), which takes jitter out of estimated joints."""

from __future__ import annotations

import numpy as np

# Cutoff at rest in Hz, its growth with the speed in Hz per m/s, and the cutoff of the speed.
MIN_CUTOFF, BETA, SPEED_CUTOFF = 1.5, 4.0, 1.0


class OneEuro:
    """Smooths an array of positions: jitter at rest goes, fast motion hardly lags behind."""

    def __init__(self, fps: float):
        """Begin at `fps` positions per second."""
        self.fps = fps
        self.position: np.ndarray | None = None
        self.speed: np.ndarray | None = None

    def _weight(self, cutoff: np.ndarray | float) -> np.ndarray | float:
        return 1 / (1 + self.fps / (2 * np.pi * cutoff))

    def __call__(self, position: np.ndarray) -> np.ndarray:
        """Smooth the next position ``(..., C)``, in metres."""
        if self.position is None or self.speed is None:
            self.position, self.speed = position, np.zeros_like(position)
            return position
        weight = self._weight(SPEED_CUTOFF)
        self.speed = weight * (position - self.position) * self.fps + (1 - weight) * self.speed
        weight = self._weight(MIN_CUTOFF + BETA * np.linalg.norm(self.speed, axis=-1, keepdims=True))
        self.position = weight * position + (1 - weight) * self.position
        return self.position
