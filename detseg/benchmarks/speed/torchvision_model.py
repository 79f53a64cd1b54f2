"""Build torchvision's detector with the weights, anchors and samples of a detseg model, as a baseline."""

from __future__ import annotations

from typing import Any

from detseg.models import Detector
from detseg.models.build import torchvision_rcnn


def baseline_model(model: Detector) -> Any:
    """Return a torchvision detector with the weights of ``model``, all of them trainable.

    Images must have the network's size, so that torchvision does not resize them and their masks; it would also sample
    a size, and with it other anchors and RoIs than ``model``.
    """
    baseline = torchvision_rcnn(model.description)
    baseline.load_state_dict(model.state_dict())
    baseline.transform._skip_resize = True
    baseline.transform.image_mean = list(model.preprocessing.mean)
    baseline.transform.image_std = list(model.preprocessing.std)
    return baseline.to(next(model.parameters()).device)
