"""Rendered scenes as samples."""

from __future__ import annotations

import pytest
import torch

from detseg.datasets import data_loader
from detseg.datasets.rendered_scenes import RenderedScenes
from detseg.datasets.sampler import SampleKey
from detseg.engine.evaluator import evaluator_for_dataset

SIZE = (64, 80)


def test_a_sample_is_valid() -> None:
    image, target = RenderedScenes(4, SIZE)[1]
    assert image.shape == (3, *SIZE)
    assert image.dtype == torch.uint8
    assert set(target) == {"boxes", "labels", "area", "iscrowd", "masks", "image_id"}
    assert target["masks"].shape == (len(target["labels"]), *SIZE)
    assert torch.equal(target["area"], target["masks"].flatten(1).sum(1).float())


def test_every_epoch_and_seed_has_different_scenes() -> None:
    scenes = RenderedScenes(3, SIZE, seed=5)
    images = [scenes[SampleKey(index, epoch)][0] for epoch in range(2) for index in range(3)]
    images.append(RenderedScenes(3, SIZE, seed=6)[0][0])
    assert all(not torch.equal(a, b) for i, a in enumerate(images) for b in images[:i])
    assert torch.equal(scenes[0][0], images[0]), "the same at each call"
    ids = [int(scenes[SampleKey(index, epoch)][1]["image_id"]) for epoch in range(2) for index in range(3)]
    assert ids == list(range(6))


def test_an_index_outside_is_an_error() -> None:
    with pytest.raises(IndexError, match="scene 3 does not exist; there are 3 scenes per epoch"):
        RenderedScenes(3, SIZE)[3]


def test_workers_render_the_same_scenes() -> None:
    scenes = RenderedScenes(4, SIZE, seed=1)

    def epoch(workers: int) -> list[torch.Tensor]:
        loader = data_loader(scenes, 2, shuffle=True, seed=3, workers=workers)
        loader.sampler.set_epoch(2)  # type: ignore[attr-defined]
        return [image for images, _ in loader for image in images]

    assert all(torch.equal(a, b) for a, b in zip(epoch(0), epoch(2), strict=True))


def test_ap_is_1_for_the_ground_truth_and_lower_for_shifted_boxes() -> None:
    scenes = RenderedScenes(3, SIZE, seed=2)
    box_aps = []
    for shift in (0.0, 8.0):
        evaluator = evaluator_for_dataset(scenes)
        for index in range(len(scenes)):
            _, target = scenes[index]
            output = {"boxes": target["boxes"] + shift, "labels": target["labels"]}
            output |= {"scores": torch.ones(len(target["labels"])), "masks": target["masks"][:, None].float()}
            evaluator.update([target], [output])
        metrics = evaluator.compute()
        box_aps.append(metrics.scalars()["bbox_AP"])
        assert metrics.scalars()["segm_AP"] == pytest.approx(1.0)
    assert box_aps[0] == pytest.approx(1.0)
    assert box_aps[1] is not None
    assert box_aps[1] < 0.9
    assert "star" in "\n".join(metrics.lines())
