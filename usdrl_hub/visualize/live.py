"""A page that recognises actions in the browser, of a camera or a film: pose estimator, model, gallery and runtime."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..data.dataset import open_data
from ..errors import CheckpointLoadError, SkeletonFormatError
from ..facts.outputs import RUNTIME, RUNTIME_ADDRESS, RUNTIME_FILES, RUNTIME_VERSION
from ..feature_extraction_usdrl import USDRLFeatureExtractor
from ..inference.blazepose import LAYOUT, SHIPPED, constants
from ..inference.embedding import iter_embeddings
from ..inference.engine import Engine
from ..inference.export import check_exportable, write_onnx
from ..inference.scores import NONE_OF_THESE, is_single_label
from ..inference.source import ErrorHandler
from ..layouts import TO_Y_UP, conversion_weights, get_layout
from ..loading import load_feature_extractor, load_model
from ..normalization import FIRST_FRAMES, NO_DIRECTION
from ..sequence import DETECTION_THRESHOLD
from .page import check_output, packed_scene, shared_file, shown_name, write_page
from .panel import BACKGROUND_COLOR, CLASS_COLORS, PERSON_COLORS
from .scene import Scene, frames_to_draw

# Clips of a gallery in a page, and frames and frames per second of each.
_MAX_CLIPS, _CLIP_FRAMES, _CLIP_FPS = 2000, 24, 8.0
# Nearest clips shown.
_TOP_K = 5
# Frames per second of a camera's recordings; the shipped models are trained on about as many.
_FPS = 30.0
_MAX_PERSONS = 2
# Settings of a feature extractor whose steps the page has only in their plain form.
_PLAIN = {"relink": False, "choose_by": "energy", "missing": "refuse"}
_KINDS = {"recognition": "recogniser", "detection": "detector", "embedding": "encoder"}


@dataclass(frozen=True)
class LivePage:
    """A page that was written.

    Attributes:
        path: The file.
        num_clips: Clips of the gallery in it.
        runtime: The address that it loads the runtime from; None if that is part of the page.
    """

    path: Path
    num_clips: int
    runtime: str | None


def write_live_page(
    name: str | os.PathLike,
    output: str | os.PathLike,
    *,
    gallery: str | os.PathLike | None = None,
    runtime: str | os.PathLike | None = None,
    threshold: float | None = None,
    on_error: ErrorHandler | None = None,
) -> LivePage:
    """Write one HTML file that estimates poses and runs a model in the browser, from disk, without a server.

    Args:
        name: A recogniser, detector or encoder of 3D joints: a checkpoint's name, folder or hub repository.
        output: File to write, ``.html``.
        gallery: Data set file or store whose clips the page searches; an encoder needs one.
        runtime: Folder of the npm package onnxruntime-web, which becomes part of the page. Without it the page loads
            the same files from the CDN that its documentation names, and checks their hashes.
        threshold: Probability above which a frame belongs to a detector's segment, in (0, 1); 0.3 where None.
        on_error: Called with the error of a clip of the gallery that cannot be used and is skipped; None raises it.

    Raises:
        CheckpointLoadError: If the model cannot be loaded or has no place in a page.
        SkeletonFormatError: If no clip of the gallery fits the model.
        ValueError: If `output` has another suffix, the page lacks a step of the model's preprocessing, the gallery is
            too large, the runtime is another version, or a package is missing.
    """
    check_output(output, (".html",), "a page is written")
    if threshold is not None and not 0 < threshold < 1:
        raise ValueError(f"threshold must be between 0 and 1, got {threshold}")
    check_exportable(name)
    files = {} if runtime is None else _runtime_files(Path(runtime))
    model, extractor = load_model(name), load_feature_extractor(name)
    shown = shown_name(name)
    if model.task == "pretraining":
        model = model.base_model  # type: ignore[assignment]
    _check_model(model, shown, gallery is not None, threshold)
    how = {**preprocessing(extractor, shown), **_classes(model, threshold), "stride": _stride(model, extractor)}
    count = size = 0
    if gallery is not None:
        rows, clips = _gallery(gallery, Engine(model.base_model, extractor), on_error)
        count, size = rows.shape
        files["gallery.f32"], files["gallery.json"] = rows.tobytes(), json.dumps(clips).encode()
        files["encoder.onnx"] = _onnx(model.base_model)
    if model.task != "embedding":
        files["model.onnx"] = _onnx(model)
    for part in ("detector", "lite"):
        files[f"{part}.onnx"] = (SHIPPED / f"{part}.onnx").read_bytes()
    address = RUNTIME_ADDRESS if runtime is None else None
    content = {
        "name": shown,
        "kind": _KINDS[model.task],
        "how": how,
        "pose": {**constants(), "persons": min(extractor.num_persons, _MAX_PERSONS)},
        "skeleton": _skeleton(),
        "fps": _FPS,
        "none_of_these": NONE_OF_THESE,
        "colors": PERSON_COLORS,
        "class_colors": CLASS_COLORS,
        "background_color": BACKGROUND_COLOR,
        "gallery": {"size": size, "count": count, "top_k": _TOP_K} if count else None,
        "runtime": {"name": f"{RUNTIME} {RUNTIME_VERSION}", "address": address, "files": RUNTIME_FILES},
    }
    path = Path(output)
    parts = {f"{part}_script": shared_file(f"live_{part}.js") for part in ("clips", "pose", "view")}
    embedded = "\n".join(_embedded(file, data) for file, data in files.items())
    source = "'none'" if address is None else "/".join(address.split("/")[:3])
    write_page("live_template.html", f"{shown} in the browser", content, path, **parts, files=embedded, source=source)
    return LivePage(path, count, address)


def preprocessing(extractor: USDRLFeatureExtractor, name: str = "the model") -> dict[str, Any]:
    """What the page's JavaScript must know to make clips of BlazePose's landmarks as a feature extractor does.

    Args:
        extractor: The model's.
        name: The model, for errors.

    Returns:
        Sizes and geometry of the clips; `joints`, for each of the model's joints the landmarks that it is made of with
        their weights; `axes` and `signs`, which turn the result upright; `distances`, bones between any two joints, if
        missing joints are filled, else None.

    Raises:
        ValueError: If the page lacks a step of the preprocessing.
    """
    source, target = get_layout(LAYOUT), get_layout(extractor.layout)
    if not target.is_3d or extractor.num_channels != 3:
        raise ValueError(
            f"{name} reads 2D keypoints, but the page estimates joints in 3D: export a model of 3D joints"
        )
    for field, plain in _PLAIN.items():
        if (value := getattr(extractor, field)) != plain:
            raise ValueError(
                f"{name} has {field}={value!r} in preprocessor_config.json, which the page cannot do: use usdrl "
                f"predict, or export a copy with {field}={plain!r}"
            )
    same = source.joint_names == target.joint_names
    weights = np.eye(source.num_joints) if same else conversion_weights(source, target)
    # Landmarks have y down; see `SkeletonSequence.to_layout`.
    axes, signs = TO_Y_UP["-y"] if target.up == "y" else ((0, 1, 2), (1, 1, 1))
    geometry = extractor.geometry
    return {
        "joints": [[[int(part), float(row[part])] for part in np.flatnonzero(row)] for row in weights],
        "axes": list(axes),
        "signs": list(signs),
        "num_frames": extractor.num_frames,
        "num_persons": extractor.num_persons,
        "max_frames": extractor.max_frames,
        "fill": geometry.fill,
        "center_joint": geometry.center_joint,
        "x_axis": _list(geometry.x_axis),
        "z_axis": _list(geometry.z_axis),
        "upright": geometry.upright,
        "torso": _list(geometry.torso),
        "torso_length": geometry.torso_length,
        "distances": target.distances.tolist() if extractor.fill_joints else None,
        "first_frames": FIRST_FRAMES,
        "least": NO_DIRECTION,
    }


def _list(joints: Any) -> list[int] | None:
    return None if joints is None else list(joints)


def _check_model(model: Any, name: str, has_gallery: bool, threshold: float | None) -> None:
    if model.task not in _KINDS:
        raise CheckpointLoadError(
            f"{name} is {type(model).__name__}, and a page shows recognisers, detectors, and encoders with a gallery: "
            "use --output-dir for one ONNX file"
        )
    if model.task == "embedding":
        if not has_gallery:
            raise CheckpointLoadError(
                f"{name} is an encoder without classes: add --gallery with the clips that the page is to search"
            )
    elif not is_single_label(model.config):
        raise CheckpointLoadError(
            f"{name} has the problem_type '{model.config.problem_type}', and a page needs classes of which one holds "
            "at a time: use --output-dir for one ONNX file"
        )
    if threshold is not None and model.task != "detection":
        raise ValueError(f"a threshold has no effect on {name}, which is not a detector: leave it out")


def _classes(model: Any, threshold: float | None) -> dict[str, Any]:
    config = model.config
    is_smoothed = model.task == "detection" and config.encoder == "dste"
    return {
        "min_similarity": getattr(config, "min_similarity", None) if model.task == "recognition" else None,
        "classes": [] if model.task == "embedding" else config.class_names,
        "has_background": model.has_background,
        "threshold": DETECTION_THRESHOLD if threshold is None else threshold,
        "shift_gap": config.shift_gap if is_smoothed else 1,
    }


def _stride(model: Any, extractor: USDRLFeatureExtractor) -> int:
    """Frames between windows, as for the timelines of `inference.timeline`."""
    return max(extractor.num_frames // (2 if model.task == "detection" else 8), 1)


def _skeleton() -> dict[str, Any]:
    layout = get_layout(LAYOUT)
    empty = np.zeros((1, 1, layout.num_joints, 3), np.float32)
    sides = Scene(empty, empty[..., 0] > 0, layout).sides
    return {"edges": [list(pair) for pair in layout.edges], "sides": sides.tolist()}


def _onnx(model: Any) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return write_onnx(model, Path(folder) / "model.onnx").path.read_bytes()


def _gallery(
    gallery: str | os.PathLike, engine: Engine, on_error: ErrorHandler | None
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Embeddings ``(N, 2d)`` of length 1, and the clips that they are of as scenes of a page."""
    data = open_data(gallery)
    if len(data) > _MAX_CLIPS:
        raise ValueError(f"{gallery}: a page holds {_MAX_CLIPS} clips at most, not {len(data)}: give a smaller one")
    rows, clips = [], []
    for sequence, embedding in iter_embeddings(data, engine, on_error=on_error):
        rows.append(embedding / max(float(np.linalg.norm(embedding)), 1e-12))
        scene = replace(Scene.of(sequence), floor=None)
        frames, fps = frames_to_draw(scene.num_frames, scene.rate, _CLIP_FRAMES, _CLIP_FPS)
        label = None if sequence.label is None else data.class_names[sequence.label]
        played = packed_scene(scene.subsampled(frames, fps), np.arange(len(frames)), 1)
        clips.append({"name": sequence.name, "label": label, "scene": played})
    if not rows:
        raise SkeletonFormatError(f"{gallery}: no clip of it fits the model")
    return np.stack(rows).astype("<f4"), clips


def _runtime_files(folder: Path) -> dict[str, bytes]:
    """The files of onnxruntime-web in the folder of its npm package.

    Raises:
        ValueError: If one is missing or of another version.
    """
    files = {}
    how = f"npm install {RUNTIME}@{RUNTIME_VERSION} makes the folder node_modules/{RUNTIME}"
    for name, expected in RUNTIME_FILES.items():
        found = next((path for path in (folder / "dist" / name, folder / name) if path.is_file()), None)
        if found is None:
            raise ValueError(f"{folder}: there is no {name} of {RUNTIME} in it: {how}")
        files[name] = found.read_bytes()
        digest = base64.b64encode(hashlib.sha384(files[name]).digest()).decode("ascii")
        if f"sha384-{digest}" != expected:
            raise ValueError(f"{found}: it is not that of {RUNTIME} {RUNTIME_VERSION}, with which pages work: {how}")
    return files


def _embedded(name: str, data: bytes) -> str:
    """A file as an element of a page, compressed."""
    text = base64.b64encode(gzip.compress(data, mtime=0)).decode("ascii")
    return f'<script type="application/octet-stream" data-file="{name}">{text}</script>'
