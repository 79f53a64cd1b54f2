"""Run a trained model over images and folders; write results and pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pycocotools import mask as coco_mask
from tqdm import tqdm

from detseg.boxes import xyxy_to_xywh
from detseg.classes import ClassMap
from detseg.errors import DataError
from detseg.images import IMAGE_SUFFIXES, decode_image
from detseg.inference.predictor import Predictor
from detseg.options import PredictConfig
from detseg.reports.draw import draw, draw_class
from detseg.reports.sheet import write_image
from detseg.runtime.files import write_json
from detseg.structures import ClassPrediction, FieldPredictions, Prediction


@dataclass(frozen=True)
class Predicted:
    """What ``predict`` did.

    Attributes:
        results: COCO results form, one dict a detection (a class for classifiers, one a label field), with the file
            name added.
        failed: "file: reason" of each file that could not be read.
    """

    results: list[dict[str, Any]]
    failed: list[str]


def predict(config: PredictConfig) -> Predicted:
    """Predict all of ``config.images``; a file that cannot be read is named and left out, the rest goes on."""
    files = find_images(config.images)
    predictor = Predictor(config.run, config.device)
    output = Path(config.output)
    results: list[dict[str, Any]] = []
    failed: list[str] = []
    for image_id, (path, name) in enumerate(tqdm(files, desc="predict", unit="image", disable=None), start=1):
        try:
            prediction = predictor(path)
        except (DataError, OSError) as error:
            failed.append(str(error) if Path(name).name in str(error) else f"{name}: {error}")
            continue
        results.extend(
            {"image_id": image_id, "file_name": name, **result}
            for result in to_results(prediction, predictor.class_map)
        )
        if config.draw:
            write_image(output / "pictures" / f"{name}.jpg", _drawn(path, prediction, predictor, config.min_score))
    write_json(output / "predictions.json", results)
    images = [{"id": image_id, "file_name": name} for image_id, (_, name) in enumerate(files, start=1)]
    points: dict[str, Any] = {}
    if predictor.keypoints:
        skeleton = [(a + 1, b + 1) for a, b in predictor.keypoints.skeleton]
        points = {"keypoints": predictor.keypoints.names, "skeleton": skeleton}
    categories = [
        {"id": predictor.class_map.category_id_of(label), "name": name, **points}
        for label, name in enumerate(predictor.class_map.names, start=1)
    ]
    write_json(output / "images.json", {"images": images, "categories": categories, "failed": failed})
    above = sum(result["score"] >= config.min_score for result in results)
    print(
        f"{len(files) - len(failed)} images, {len(results)} results, {above} of them score {config.min_score} or more"
    )
    print(f"wrote {output / 'predictions.json'}" + (f" and {output / 'pictures'}" if config.draw else ""))
    for line in failed:
        print(f"could not be read: {line}")
    return Predicted(results, failed)


def find_images(given: list[str]) -> list[tuple[Path, str]]:
    """(path, name) of every image file named or inside a folder named, sorted; the name is relative to its folder.

    Raises:
        FileNotFoundError: a path does not exist.
        DataError: no image is found.
    """
    found: list[tuple[Path, str]] = []
    for item in map(Path, given):
        if item.is_dir():
            base = item if len(given) == 1 else item.parent  # of several folders, the name tells which
            inside = sorted(p for p in item.rglob("*") if p.is_file() and p.suffix.lower() in IMAGE_SUFFIXES)
            found.extend((path, path.relative_to(base).as_posix()) for path in inside)
        elif item.is_file():
            found.append((item, item.name))
        else:
            raise FileNotFoundError(f"{item}: no such file or folder")
    names = [name for _, name in found]
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice is not None:
        raise DataError(f"{twice} is given twice, and one result would replace the other; predict them in two runs")
    if not found:
        raise DataError(f"{', '.join(given)}: no images here; looked for {', '.join(sorted(IMAGE_SUFFIXES))}")
    return found


def to_results(
    prediction: Prediction | ClassPrediction | FieldPredictions, class_map: ClassMap
) -> list[dict[str, Any]]:
    """One dict for each detection in COCO's results form, without the image id; upright pixels. A classifier gives one
    class, with several label fields one for each ``field``."""
    if isinstance(prediction, FieldPredictions):
        return [
            {
                "field": name,
                "category_id": class_map.category_id_of(label),
                "category": class_map.name_of(label).removeprefix(f"{name}="),
                "score": float(one.probabilities.max()),
                "probabilities": [float(value) for value in one.probabilities],
            }
            for (name, one), label in zip(prediction.fields.items(), prediction.labels(), strict=True)
        ]
    if isinstance(prediction, ClassPrediction):
        index = prediction.class_index
        return [
            {
                "category_id": class_map.category_ids[index],
                "category": class_map.names[index],
                "score": float(prediction.probabilities[index]),
                "probabilities": [float(value) for value in prediction.probabilities],
            }
        ]
    results = []
    for i, box in enumerate(xyxy_to_xywh(prediction.boxes.astype("float64"))):
        label = int(prediction.labels[i])
        result: dict[str, Any] = {
            "category_id": class_map.category_id_of(label),
            "category": class_map.name_of(label),
            "bbox": [float(value) for value in box],
            "score": float(prediction.scores[i]),
        }
        if prediction.rles is not None:
            rle = prediction.rles[i]
            result["segmentation"] = {"size": list(rle["size"]), "counts": rle["counts"].decode()}
            result["area"] = float(coco_mask.area(rle))
        if prediction.keypoints is not None:
            result["keypoints"] = [float(value) for value in prediction.keypoints[i].ravel()]
        results.append(result)
    return results


def _drawn(
    path: Path, prediction: Prediction | ClassPrediction | FieldPredictions, predictor: Predictor, min_score: float
) -> Any:
    image = decode_image(path)
    if not isinstance(prediction, Prediction):
        return draw_class(image, prediction, predictor.class_map)
    skeleton = predictor.keypoints.skeleton if predictor.keypoints else ()
    return draw(image, prediction, predictor.class_map, min_score=min_score, skeleton=skeleton)
