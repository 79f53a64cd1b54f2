"""torchvision's own detector with the weights, anchors and samples of one of ours: what it is compared with."""

from __future__ import annotations

from typing import Any

from detseg.models import Detector
from detseg.models.build import torchvision_rcnn


def baseline_model(model: Detector) -> Any:
    """a torchvision detector with the weights of ``model``, all of it learning.

    Images come in the network's size, so that torchvision need not resize them and their masks; it would also draw a
    size, and with that other anchors and RoIs than ours.
    """
    baseline = torchvision_rcnn(model.description)
    baseline.load_state_dict(model.state_dict())
    baseline.transform._skip_resize = True
    baseline.transform.image_mean = list(model.preprocessing.mean)
    baseline.transform.image_std = list(model.preprocessing.std)
    return baseline.to(next(model.parameters()).device)
