"""The same samples for Keras 3. Keras is imported when it is asked for; its backend is chosen by ``KERAS_BACKEND``."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from detseg.datasets.dataset import Dataset
from detseg.datasets.labelled_images import LabelledImages
from detseg.datasets.sampler import EpochSampler
from detseg.errors import DataError


def keras_dataset(
    dataset: Dataset | LabelledImages,
    batch_size: int,
    *,
    shuffle: bool = False,
    seed: int = 0,
    channels_first: bool = False,
) -> Any:
    """A ``keras.utils.PyDataset`` of a classification dataset, for ``model.fit`` and ``model.evaluate``.

    A batch is ``(images, class_index)``: float32 [B, H, W, 3] in [0, 1] (or [B, 3, H, W]) and int64 [B] in 0..K-1,
    for ``sparse_categorical_crossentropy``. What is in a batch is as in ``data_loader``: a function of (seed, epoch).
    The epoch counts up at Keras's ``on_epoch_end``: after each pass, and after Keras's look at a batch when it builds a
    model. ``fit(shuffle=False)`` also keeps the order of the batches.

    Raises:
        DataError: keras is missing, or the samples are not for classification, or not all of one size.
    """
    try:
        import keras
    except ImportError as error:
        raise DataError(
            f"keras could not be imported ({error}); pip install 'detseg[keras]', and set KERAS_BACKEND=torch in the "
            "environment before anything imports keras"
        ) from error
    if dataset.task != "classify" or (isinstance(dataset, Dataset) and dataset.table.label_fields):
        raise DataError("Keras is fed with one class an image; build the dataset with task='classify' and one label")
    if not (dataset.preprocessing.crop or dataset.preprocessing.stretch):
        raise DataError("Keras needs images of one size; set a crop in the preprocessing")
    if batch_size < 1:
        raise DataError(f"batch size {batch_size}; it must be at least 1")

    class Batches(keras.utils.PyDataset):
        """Batches by number; the last one may be smaller."""

        def __init__(self) -> None:
            super().__init__()
            self.sampler = EpochSampler(len(dataset), seed=seed, shuffle=shuffle)
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
