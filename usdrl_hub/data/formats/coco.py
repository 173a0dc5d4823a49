"""Annotations in COCO's form: COCO, COCO-WholeBody, Halpe, PoseTrack, and what annotation programs export."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ...errors import EmptySequenceError, notice
from ...layouts import LAYOUTS
from ...sequence import SkeletonFormatError
from ..detections import Detection, frame_positions, to_numbers, track_number
from .alphapose import number_of_image
from .estimates import Estimates


def is_annotations(content: Any) -> bool:
    """Whether a file is COCO's images and annotations."""
    return isinstance(content, Mapping) and all(
        isinstance(content.get(key), list) for key in ("images", "annotations")
    )


def read_annotations(path: Path, content: Mapping[str, Any]) -> Iterator[tuple[str, Estimates]]:
    """Yield the videos of a file; images of different sizes, which can be of none, are recordings of one frame each.

    Args:
        path: The file.
        content: What is in it.

    Raises:
        EmptySequenceError: If no annotation has keypoints.
        SkeletonFormatError: If an image or an annotation is something else.
    """
    images = _images(path, content["images"])
    layout = _layout_of(content.get("categories"))
    people: dict[Any, list[tuple[Any, np.ndarray]]] = {}
    for number, entry in enumerate(content["annotations"]):
        if not isinstance(entry, Mapping) or not _is_key(entry.get("image_id")) or entry["image_id"] not in images:
            raise SkeletonFormatError(f"{path}: annotation {number} names none of the images")
        values = entry.get("keypoints")
        if values is None or not any(values if isinstance(values, list) else [1]):
            # A person without keypoints, or another object.
            continue
        points = to_numbers(path, number, values)
        if points.ndim != 1 or len(points) % 3:
            raise SkeletonFormatError(f"{path}: 'keypoints' of annotation {number} are not x, y, v for each joint")
        track = track_number(entry.get("track_id", _attribute(entry, "track_id")))
        points = points.reshape(-1, 3)
        # 0 is not labelled, 1 hidden, 2 visible.
        points[:, 2] = np.minimum(points[:, 2], 1)
        people.setdefault(entry["image_id"], []).append((track, points))
    if not people:
        raise EmptySequenceError(f"{path}: no person with keypoints is annotated in its {len(images)} images")
    for name, group in _videos(path, images):
        numbers = {image: number for number, image in enumerate(group)}
        known = [images[image][1] for image in group]
        if None not in known and len(set(known)) == len(known):
            places, count = frame_positions(path, [number for number in known if number is not None])
            numbers = {image: places[number] for image, number in zip(group, known, strict=True) if number is not None}
        else:
            count = len(group)
        detections: list[Detection] = [
            (numbers[image], track, points) for image in group for track, points in people.get(image, ())
        ]
        if not detections and len(images) > len(group):
            continue
        shapes = {images[image][2] for image in group}
        shape = shapes.pop() if len(shapes) == 1 else None
        # Joints that are not labelled have v = 0 and lie at 0, 0.
        yield name, Estimates(detections, count, layout=layout, fields={"name": name, "image_shape": shape})


def _is_key(value: Any) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool)


def _attribute(entry: Mapping[str, Any], key: str) -> Any:
    attributes = entry.get("attributes")
    return attributes.get(key) if isinstance(attributes, Mapping) else None


# Video, number in it and (height, width) of an image.
_Image = tuple[str, int | None, tuple[float, float] | None]


def _images(path: Path, entries: list[Any]) -> dict[Any, _Image]:
    found: dict[Any, _Image] = {}
    for number, entry in enumerate(entries):
        if not isinstance(entry, Mapping) or not _is_key(entry.get("id")):
            raise SkeletonFormatError(f"{path}: image {number} has no 'id'")
        file = PurePosixPath(str(entry.get("file_name", entry["id"]))[:1000])
        video = entry.get("vid_id", entry.get("video_id", str(file.parent)))
        size = [entry.get(key) for key in ("height", "width")]
        has_size = all(
            isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e6 for value in size
        )
        shape = (float(size[0]), float(size[1])) if has_size else None  # type: ignore[arg-type]
        found[entry["id"]] = (str(video)[:1000], number_of_image(file.name), shape)
    return found


def _videos(path: Path, images: Mapping[Any, _Image]) -> list[tuple[str, list[Any]]]:
    """Names of recordings and their images in order of time."""
    videos: dict[str, list[Any]] = {}
    for image, (video, _, _) in images.items():
        videos.setdefault(video, []).append(image)
    found: list[tuple[str, list[Any]]] = []
    for video, group in videos.items():
        # Without numbers the order of the file stays.
        group.sort(key=lambda image: images[image][1] or 0)
        name = path.stem if len(videos) == 1 else f"{path.stem}, {video}"
        if len({images[image][2] for image in group}) > 1:
            notice(
                f"{path}: its images differ in size, so they are not a video: each is a recording of one frame",
                "images that are no video",
            )
            found += [(f"{path.stem}, {image}", [image]) for image in group]
        else:
            found.append((name, group))
    return found


def _layout_of(categories: Any) -> str | None:
    """The layout whose joints a category names, in its order; None where the number of joints says it."""
    for category in categories if isinstance(categories, list) else ():
        names = category.get("keypoints") if isinstance(category, Mapping) else None
        if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
            wanted = tuple(name.lower().replace(" ", "_") for name in names)
            return next((name for name, layout in LAYOUTS.items() if layout.joint_names == wanted), None)
    return None
