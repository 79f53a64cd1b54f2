"""Task names."""

from __future__ import annotations

from typing import Literal

Task = Literal["detect", "segment", "keypoints", "classify"]
