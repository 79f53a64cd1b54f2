"""Labelled scenes without end, rendered from a seed: what starting weights are trained on. Shares nothing with demo."""

from detseg.synthetic.scenes.contours import SHAPE_FAMILIES
from detseg.synthetic.scenes.scene import Scene, draw_scene
from detseg.synthetic.scenes.textures import TEXTURES

__all__ = ["SHAPE_FAMILIES", "TEXTURES", "Scene", "draw_scene"]
