"""Provide samples to Keras 3. Keras is imported on first use; ``KERAS_BACKEND`` selects its backend."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from detseg.datasets.contracts import has_ground_truth_table
from detseg.datasets.sampler import sampler_class
from detseg.errors import DataError
from detseg.preprocess import Preprocessing


class ClassificationDataset(Protocol):
    """A dataset whose samples are ``(image uint8 [3, H, W], target)`` with the class in ``target["class_index"]``."""

    @property
    def task(self) -> str: ...

    @property
    def preprocessing(self) -> Preprocessing: ...

    def __len__(self) -> int: ...

    def __getitem__(self, key: Any, /) -> Any: ...


def keras_dataset(
    dataset: ClassificationDataset,
    batch_size: int,
    *,
    shuffle: bool = False,
    seed: int = 0,
    channels_first: bool = False,
) -> Any:
    """A ``keras.utils.PyDataset`` of a classification dataset, for ``model.fit`` and ``model.evaluate``.

    A batch is ``(images, class_index)``: float32 [B, H, W, 3] in [0, 1] (or [B, 3, H, W]) and int64 [B] in 0..K-1,
    for ``sparse_categorical_crossentropy``. As in ``data_loader``, the content of a batch is a function of (seed,
    epoch). The epoch is incremented in Keras's ``on_epoch_end``: after each pass, and after Keras reads a batch to
    build a model. ``fit(shuffle=False)`` also keeps the order of the batches.

    Args:
        dataset: a ``Dataset`` of task "classify", a ``LabelledImages``, or another dataset with the same samples.

    Raises:
        DataError: keras is missing, or the samples are not for classification or differ in size.
    """
    try:
        import keras
    except ImportError as error:
        raise DataError(
            f"keras could not be imported ({error}); pip install 'detseg[keras]' and set the environment variable "
            "KERAS_BACKEND=torch before keras is imported"
        ) from error
    if dataset.task != "classify" or (has_ground_truth_table(dataset) and dataset.ground_truth_table().label_fields):
        raise DataError("Keras needs one class per image; create the dataset with task='classify' and one label")
    if not (dataset.preprocessing.crop or dataset.preprocessing.stretch):
        raise DataError("Keras needs images of equal size; set a crop in the preprocessing")
    if batch_size < 1:
        raise DataError(f"batch size {batch_size}; it must be at least 1")

    class Batches(keras.utils.PyDataset):
        """Batches by index; the last one may be smaller."""

        def __init__(self) -> None:
            super().__init__()
            self.sampler = sampler_class(dataset)(len(dataset), seed=seed, shuffle=shuffle)
            self.keys = list(self.sampler)

        def __len__(self) -> int:
            return -(-len(self.keys) // batch_size)

        def __getitem__(self, index: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
            samples = [dataset[key] for key in self.keys[index * batch_size : (index + 1) * batch_size]]
            images = np.stack([image.numpy() for image, _ in samples]).astype(np.float32) / np.float32(255)
            classes = np.array([int(target["class_index"]) for _, target in samples], np.int64)
            return (images if channels_first else np.ascontiguousarray(images.transpose(0, 2, 3, 1))), classes

        def on_epoch_end(self) -> None:
            self.sampler.set_epoch(self.sampler.epoch + 1)
            self.keys = list(self.sampler)

    return Batches()
