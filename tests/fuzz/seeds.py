"""Small sound files of every kind, from which the inputs are made."""

from __future__ import annotations

import base64
import functools
import io
import json
import zlib
from pathlib import Path

import numpy as np
import PIL.Image

from detseg.masks import mask_to_rle

SIZE = (24, 20)
"""Width and height of the images of the data sets."""


def encoded(mode: str, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    rng = np.random.default_rng(0)
    pixels = PIL.Image.fromarray(rng.integers(0, 255, (SIZE[1], SIZE[0], 3), dtype=np.uint8))
    if mode == "F":
        image = PIL.Image.fromarray(np.arange(48, dtype=np.float32).reshape(6, 8))
    elif mode == "I;16":
        image = PIL.Image.fromarray(np.arange(48, dtype=np.uint16).reshape(6, 8))
    else:
        image = pixels.quantize(8) if mode == "P" else pixels.convert(mode)
    image.save(file, format, **options)
    return file.getvalue()


@functools.cache
def images() -> dict[str, bytes]:
    """Kind -> a small image file; each decoder and each of its branches."""
    exif = PIL.Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker of cameras"
    frames = [PIL.Image.new("RGBA", SIZE, colour) for colour in ("red", "blue")]
    return {
        "png": encoded("RGB", "PNG"),
        "png grey": encoded("L", "PNG"),
        "png palette": encoded("P", "PNG", exif=exif),
        "png alpha": encoded("RGBA", "PNG"),
        "png 1 bit": encoded("1", "PNG"),
        "png 16": encoded("I;16", "PNG"),
        "jpeg": encoded("RGB", "JPEG", exif=exif, comment=b"a comment"),
        "jpeg progressive": encoded("RGB", "JPEG", progressive=True),
        "jpeg cmyk": encoded("CMYK", "JPEG"),
        "webp": encoded("RGB", "WEBP", exif=exif),
        "webp lossless": encoded("RGBA", "WEBP", lossless=True),
        "webp animated": encoded("RGBA", "WEBP", save_all=True, append_images=frames),
        "apng": encoded("RGBA", "PNG", save_all=True, append_images=frames),
        "bmp": encoded("RGB", "BMP"),
        "bmp palette": encoded("P", "BMP"),
        "tiff": encoded("RGB", "TIFF", exif=exif),
        "tiff lzw": encoded("RGB", "TIFF", compression="tiff_lzw"),
        "tiff jpeg": encoded("RGB", "TIFF", compression="jpeg"),
        "tiff fax": encoded("1", "TIFF", compression="group4"),
        "tiff float": encoded("F", "TIFF"),
        "tiff 16": encoded("I;16", "TIFF", compression="tiff_adobe_deflate"),
        "ppm": encoded("RGB", "PPM"),
        "pbm": encoded("1", "PPM"),
        "array": array(np.arange(480, dtype=np.uint8).reshape(20, 24)),
        "array planes": array(np.ones((3, 20, 24), np.uint16)),
        "array of floats": array(np.asfortranarray(np.ones((20, 24, 4), np.float16))),
        "plain pgm": b"P2\n# comment\n4 2\n300\n1 2 3 4\n5 6 7 300\n",
        "plain ppm": b"P3 2 1 255 1 2 3 4 5 6\n",
        "bmp runs": b"BM" + bytes(8) + (118).to_bytes(4, "little") + (40).to_bytes(4, "little")
        + (8).to_bytes(4, "little") + (2).to_bytes(4, "little") + b"\1\0\4\0\2\0\0\0" + bytes(20) + bytes(64)
        + b"\4\x12\0\0\4\x21\0\1",
    }  # fmt: skip


_MASK = base64.b64encode(encoded("1", "PNG")).decode()
_RLE = mask_to_rle(np.pad(np.ones((5, 4)), ((0, SIZE[1] - 5), (0, SIZE[0] - 4))))["counts"].decode()
_COCO = {
    "images": [
        {"id": 1, "file_name": "a.png", "width": SIZE[0], "height": SIZE[1]},
        {"id": 2, "file_name": "b.png", "width": SIZE[0], "height": SIZE[1]},
    ],
    "categories": [
        {"id": 1, "name": "bolt", "keypoints": ["top", "tip"], "skeleton": [[1, 2]]},
        {"id": 5, "name": "nut", "supercategory": "x"},
    ],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 8.5, 9], "area": 76.5, "iscrowd": 0,
         "segmentation": [[1, 2, 9, 2, 9, 11, 1, 11]], "keypoints": [2, 3, 2, 8, 9, 1], "num_keypoints": 2},
        {"id": 2, "image_id": 2, "category_id": 5, "bbox": [0, 0, 4, 5], "area": 20, "iscrowd": 1,
         "segmentation": {"size": [SIZE[1], SIZE[0]], "counts": [0, 5, 15, 5, 455]}},
        {"id": 3, "image_id": 2, "category_id": 5, "bbox": [0, 0, 4, 5], "area": 20, "iscrowd": 0,
         "segmentation": {"size": [SIZE[1], SIZE[0]], "counts": _RLE}},
    ],
}  # fmt: skip
_LABELME = {
    "version": "5.3.1", "flags": {}, "imagePath": "a.png", "imageHeight": SIZE[1], "imageWidth": SIZE[0],
    "shapes": [
        {"label": "bolt", "points": [[1, 2], [9, 2], [9, 12]], "shape_type": "polygon", "group_id": None},
        {"label": "nut", "points": [[1, 2], [9, 12]], "shape_type": "rectangle", "group_id": 3},
        {"label": "nut", "points": [[5, 5], [7, 7]], "shape_type": "circle"},
        {"label": "nut", "points": [[0, 0], [SIZE[0] - 1, SIZE[1] - 1]], "shape_type": "mask", "mask": _MASK},
    ],
}  # fmt: skip
_VIA = {
    "a.png10": {
        "filename": "a.png", "size": 10, "file_attributes": {},
        "regions": [
            {"shape_attributes": {"name": "rect", "x": 1, "y": 2, "width": 5, "height": 6},
             "region_attributes": {"class": "bolt"}},
            {"shape_attributes": {"name": "polygon", "all_points_x": [1, 9, 9], "all_points_y": [1, 1, 9]},
             "region_attributes": {"class": "nut"}},
        ],
    },
}  # fmt: skip
_VOC = (
    "<annotation><folder>x</folder><filename>a.png</filename><size><width>24</width><height>20</height><depth>3</depth>"
    "</size><segmented>0</segmented><object><name>bolt</name><pose>Left</pose><truncated>0</truncated><difficult>0"
    "</difficult><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>12</ymax></bndbox></object></annotation>"
)
_CVAT = (
    '<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version><meta><task><labels><label><name>bolt'
    "</name></label><label><name>man</name><type>skeleton</type></label><label><name>l</name><parent>man</parent>"
    '</label></labels></task></meta><image id="0" name="a.png" width="24" height="20" subset="train">'
    '<box label="bolt" xtl="1" ytl="2" xbr="9.5" ybr="8" rotation="10" occluded="0"/>'
    '<polygon label="bolt" points="1,1;9,1;9,9"/><ellipse label="bolt" cx="5" cy="6" rx="3" ry="2"/>'
    '<mask label="bolt" left="2" top="3" width="4" height="2" rle="0, 3, 2, 3"/>'
    '<skeleton label="man"><points label="l" points="4,5" occluded="0" outside="0"/></skeleton></image></annotations>'
)
_WEB_TOOL = (
    "<annotation><filename>a.png</filename><folder>images</folder><object><name>bolt</name><deleted>0</deleted><id>0"
    "</id><polygon><pt><x>1</x><y>2</y></pt><pt><x>9</x><y>2</y></pt><pt><x>9</x><y>9</y></pt></polygon></object>"
    "<object><name>nut</name><id>1</id><segm><mask>m.png</mask><box><xmin>1</xmin><ymin>1</ymin><xmax>5</xmax>"
    "<ymax>6</ymax></box></segm></object><imagesize><nrows>20</nrows><ncols>24</ncols></imagesize></annotation>"
)

_SIZES = {"original_width": SIZE[0], "original_height": SIZE[1], "image_rotation": 0}
_BRUSH = "00000780392737fe000010077c4fe0402f80"
_LABEL_STUDIO = [
    {"id": 1, "data": {"image": "/data/upload/1/a.png"}, "predictions": [], "annotations": [
        {"id": 1, "was_cancelled": False, "ground_truth": False, "updated_at": "2024-01-01", "result": [
            {**_SIZES, "id": "a", "type": "rectanglelabels", "value": {"x": 10, "y": 20, "width": 30, "height": 40,
             "rotation": 20, "rectanglelabels": ["bolt"]}},
            {**_SIZES, "id": "b", "type": "polygonlabels", "value": {"points": [[1, 1], [50, 1], [50, 50]],
             "polygonlabels": ["nut"]}},
            {**_SIZES, "id": "c", "type": "keypointlabels", "parentID": "a", "value": {"x": 20, "y": 30, "width": 1,
             "keypointlabels": ["tip"]}},
            {**_SIZES, "id": "d", "type": "brushlabels", "value": {"format": "rle", "rle": list(bytes.fromhex(_BRUSH)),
             "brushlabels": ["nut"]}},
            {**_SIZES, "id": "e", "type": "ellipselabels", "value": {"x": 50, "y": 50, "radiusX": 9, "radiusY": 8,
             "rotation": 0, "ellipselabels": ["nut"]}},
        ]},
    ]},
    {"id": 2, "data": {"image": "b.png"}, "annotations": [{"result": [
        {"type": "choices", "from_name": "state", "value": {"choices": ["good"]}}]}]},
]  # fmt: skip
_LABEL_STUDIO_MIN = [
    {"image": "a.png", "id": 1, "choice": "good", "annotator": 1, "annotation_id": 1, "lead_time": 2.5, "label": [
        {**_SIZES, "x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0, "rectanglelabels": ["bolt"]}]},
    {"image": "b.png", "id": 2, "choice": {"choices": ["good", "new"]}, "annotator": 1, "annotation_id": 2,
     "lead_time": 1, "label": []},
]  # fmt: skip
_CREATEML = [
    {"image": "a.png", "annotations": [{"label": "bolt", "coordinates": {"x": 9, "y": 9, "width": 6, "height": 7}}]},
    {"image": "b.png", "annotations": []},
]
_VIA_3 = {
    "project": {"pid": "__VIA_PROJECT_ID__", "vid_list": ["1", "2"]}, "config": {},
    "attribute": {"1": {"aname": "class", "type": 4, "options": {"0": "bolt", "1": "nut"}, "default_option_id": ""}},
    "file": {"1": {"fid": 1, "fname": "a.png", "type": 2, "loc": 1, "src": ""},
             "2": {"fid": 2, "fname": "b.mp4", "type": 4, "loc": 1, "src": ""}},
    "view": {"1": {"fid_list": [1]}, "2": {"fid_list": [2]}},
    "metadata": {"1_a": {"vid": "1", "z": [], "xy": [2, 1, 2, 8, 9], "av": {"1": "0"}},
                 "1_b": {"vid": "1", "z": [], "xy": [9, 2, 9, 9, 2, 16, 9], "av": {"1": "1"}},
                 "2_a": {"vid": "2", "z": [1, 2], "xy": [], "av": {"1": "1"}}},
}  # fmt: skip
_SUPERVISELY = {
    "description": "", "tags": [{"name": "day", "value": "sunny"}], "size": {"height": SIZE[1], "width": SIZE[0]},
    "objects": [
        {"classTitle": "bolt", "geometryType": "rectangle", "points": {"exterior": [[1, 2], [8, 9]], "interior": []}},
        {"classTitle": "nut", "geometryType": "polygon", "points": {"exterior": [[1, 1], [15, 1], [15, 15]],
         "interior": [[[9, 3], [12, 3], [12, 6]]]}},
        {"classTitle": "nut", "geometryType": "bitmap", "bitmap": {"origin": [0, 0],
         "data": base64.b64encode(zlib.compress(encoded("P", "PNG"))).decode()}},
        {"classTitle": "man", "geometryType": "graph", "nodes": {"u1": {"loc": [3, 4], "disabled": False}}},
    ],
}  # fmt: skip
_META = {
    "classes": [
        {"title": "bolt", "shape": "rectangle", "id": 1}, {"title": "nut", "shape": "any"},
        {"title": "man", "shape": "graph", "geometry_config": {"nodes": {"u1": {"label": "tip"}}, "edges": []}},
    ],
    "tags": [],
}  # fmt: skip


def array(values: object) -> bytes:
    """The content of a .npy file."""
    file = io.BytesIO()
    np.save(file, np.asarray(values))
    return file.getvalue()


SETS: dict[str, dict[str, str | bytes]] = {
    "coco": {"annotations.json": json.dumps(_COCO)},
    "yolo": {
        "data.yaml": "path: .\ntrain: images\nnames:\n  0: bolt\n  1: nut\nkpt_shape: [2, 3]\nflip_idx: [1, 0]\n",
        "labels/a.txt": "0 0.5 0.5 0.25 0.25 0.4 0.4 2 0.6 0.6 1\n",
        "labels/b.txt": "1 0.5 0.5 0.25 0.25 0.4 0.4 2 0.6 0.6 1\n",
    },
    "darknet": {
        "obj.data": "classes = 2\ntrain = train.txt\nnames = obj.names\n",
        "obj.names": "bolt\nnut\n",
        "train.txt": "images/a.png\nimages/b.png\n",
        "labels/a.txt": "0 0.1 0.1 0.9 0.1 0.9 0.9\n",
    },
    "voc": {"Annotations/a.xml": _VOC, "ImageSets/Main/train.txt": "a\n", "labelmap.txt": "bolt:1,2,3::\n"},
    "cvat": {"annotations.xml": _CVAT},
    "labelme": {"images/a.json": json.dumps(_LABELME)},
    "web tool": {"images/a.xml": _WEB_TOOL, "Masks/m.png": encoded("L", "PNG")},
    "via": {"via.json": json.dumps(_VIA)},
    "label studio": {"project.json": json.dumps(_LABEL_STUDIO)},
    "label studio min": {"project.json": json.dumps(_LABEL_STUDIO_MIN)},
    "create ml": {"annotations.json": json.dumps(_CREATEML)},
    "via 3": {"via.json": json.dumps(_VIA_3)},
    "supervisely": {"meta.json": json.dumps(_META), "ds/ann/a.png.json": json.dumps(_SUPERVISELY)},
    "arrays": {
        "images/a.boxes.npy": array([[1, 2, 9, 12.5]]),
        "images/a.label.npy": array([1]),
        "images/a.landmarks.npy": array(np.ones((1, 2, 3), np.float16)),
        "images/a.masks.npy": array(np.ones((1, 20, 24), bool)),
        "classes.txt": "nut\nbolt\n",
    },
    "csv boxes": {"boxes.csv": "filename,width,height,class,xmin,ymin,xmax,ymax\na.png,24,20,bolt,1,2,9,12\n"},
    "csv labels": {"labels.csv": "filename,label\na.png,bolt\nb.png,nut\n"},
    "csv landmarks": {"points.csv": "image,eye_x,eye_y,nose_x,nose_y\na.png,1,2,3,4\n"},
    "masks": {"masks/a.png": encoded("P", "PNG"), "masks/b.png": encoded("L", "PNG"), "classes.txt": "bolt\nnut\n"},
    "folders": {"bolt/c.png": encoded("RGB", "PNG"), "nut/d.png": encoded("L", "PNG")},
}
"""Format -> the files that a set has beside images/a.png and images/b.png; one of them is changed."""

RESULTS = json.dumps(
    [
        {"image_id": 1, "category_id": 1, "bbox": [1, 2, 8, 9], "score": 0.5},
        {"image_id": 2, "category_id": 5, "bbox": [0, 0, 4, 5], "score": 0.9,
         "segmentation": {"size": [SIZE[1], SIZE[0]], "counts": _RLE}},
    ]
)  # fmt: skip

CONFIG = """[data]
data = "/data"
val = 0.2
[model]
task = "detect"
model = "ssdlite320_mobilenet_v3_large"
image_size = 320
[training]
epochs = 3
lr = 0.01
batch_size = 2
augment = "light"
norm_eval = true
patience = 3
device = "none"
"""
"""Options of a run on a device that does not exist, so that none starts."""


def write_set(root: Path, name: str) -> None:
    """Write a data set of two images."""
    for image, mode in (("a", "RGB"), ("b", "L")):
        if name != "folders":
            write(root / "images" / f"{image}.png", encoded(mode, "PNG"))
    for file, content in SETS[name].items():
        write(root / file, content)


def write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
