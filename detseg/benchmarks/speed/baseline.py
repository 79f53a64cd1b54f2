"""torchvision's own detector with the weights, anchors and samples of one of ours: what it is compared with."""

from __future__ import annotations

from typing import Any

from detseg.models import Detector
from detseg.models.build import plain_rcnn


def plain_peer(model: Detector) -> Any:
    """A plain torchvision detector with the weights of ``model``, all of it learning.

    Pictures come in the network's size, so that torchvision need not resize them and their masks; it would also draw a
    size, and with that other anchors and RoIs than ours.
    """
    peer = plain_rcnn(model.description)
    peer.load_state_dict(model.state_dict())
    peer.transform._skip_resize = True
    peer.transform.image_mean = list(model.preprocessing.mean)
    peer.transform.image_std = list(model.preprocessing.std)
    return peer.to(next(model.parameters()).device)
