"""Render unlimited labelled scenes from a seed, to train the starting weights. Shares no code with the demo set."""

from detseg.synthetic.scenes.contours import SHAPE_FAMILIES
from detseg.synthetic.scenes.scene import Scene, draw_scene
from detseg.synthetic.scenes.textures import TEXTURES

__all__ = ["SHAPE_FAMILIES", "TEXTURES", "Scene", "draw_scene"]
