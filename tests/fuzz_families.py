"""Families of inputs for `fuzzing`: small valid files, their damages, and their readers."""

from __future__ import annotations

import io
import json
import pickle
import random
import struct
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from usdrl_hub.errors import printable
from usdrl_hub.layouts import get_layout

from . import fuzz_formats
from .fuzzing import (
    Family,
    Files,
    Mutation,
    any_bytes,
    check_sequence,
    damage_bytes,
    damage_json,
    damage_npy,
    damage_npz,
    damage_opcodes,
    damage_pickle,
    damage_safetensors,
    damage_text,
    damage_tree,
    lose_file,
    npy,
    of_file,
    pack,
    unpack,
)

NTU_NAME, UAV_NAME = "S001C001P001R001A001.skeleton", "P001S02G10B10H20UC022000LC021000A154R0_08251609.txt"


def bodies(frames: int = 2, persons: int = 1, joints: int = 25, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Keypoints ``(T, M, V, C)`` of people who stand still and tremble; the second channel-last score is in (0, 1)."""
    rng = np.random.default_rng(seed)
    still = rng.uniform(0.1, 2, (1, persons, joints, channels))
    return (still + rng.normal(0, 0.01, (frames, persons, joints, channels))).round(4)


# --- Readers -------------------------------------------------------------------------------------------------------


def read_recordings(path: Path, **options: Any) -> None:
    """Read all sequences of a file."""
    from usdrl_hub.data.readers import iter_skeletons
    from usdrl_hub.data.reading import Reading

    count = 0
    for sequence in iter_skeletons(path, Reading(**options)):
        check_sequence(sequence)
        count += 1
    assert count or path.suffix in (".pkl", ".npz"), "no sequence"


def read_tolerantly(path: Path) -> None:
    """Read a data set as `prepare` does, which leaves out what cannot be read."""
    from usdrl_hub.data.readers import iter_skeletons

    errors: list[Exception] = []
    for sequence in iter_skeletons(path, on_error=errors.append):
        check_sequence(sequence)
    # What is wrong with one sequence is told as what is wrong with the file.
    if errors:
        raise errors[0]


def read_labels(path: Path) -> None:
    """Read the labels of a PKU-MMD video."""
    from usdrl_hub.data.text import read_pku_labels

    rows = read_pku_labels(path)
    assert rows.shape[1:] == (3,) and rows.dtype == np.int64 and (rows[:, 1] <= rows[:, 2]).all(), rows


def read_split(path: Path) -> None:
    """Read a split of PKU-MMD."""
    from usdrl_hub.data.text import read_pku_split

    train, test = read_pku_split(path)
    assert train and test and not set(train) & set(test), (train, test)


def read_table(path: Path) -> None:
    """Read a table of files and the files that it names, as `prepare` does."""
    from usdrl_hub.data.readers import iter_skeletons
    from usdrl_hub.data.sources import find_sources
    from usdrl_hub.errors import SkeletonFormatError

    sources, class_names = find_sources("csv", path)
    assert sources, "no source"
    for source in sources[:20]:
        assert source.label is None or 0 <= source.label < len(class_names), source
        try:
            for sequence in iter_skeletons(source.path):
                check_sequence(sequence)
        except SkeletonFormatError as error:
            assert printable(source.path.name)[:40] in str(error) or len(source.name) > 100, error


def read_data_set(path: Path) -> None:
    """Open a data set or a store and read everything in it that training and scoring read."""
    from usdrl_hub import open_data

    data = open_data(path)
    assert len(data) >= 0 and len(data.lengths) == len(data) and data.max_persons >= 0
    assert all(isinstance(name, str) for name in data.class_names)
    for key in ("labels", "subjects", "names", "split_test", "folds"):
        values = data.column(key)
        assert values is None or len(values) == len(data), key
    get_layout(data.layout)
    for sequence in data.drop_empty():
        check_sequence(sequence)
    for sequence in data:
        check_sequence(sequence)
    if len(data):
        check_sequence(data[len(data) - 1])
        check_sequence(data.read(0, 0, 1))


def read_store(path: Path) -> None:
    """Open a store and read everything in it."""
    read_data_set(path)
    from usdrl_hub import SkeletonStore

    store = SkeletonStore.open(path)
    assert isinstance(store.content_hash, str) and len(store.names) == len(store)


def read_checkpoint(path: Path) -> None:
    """Load a model and its feature extractor."""
    import torch

    from usdrl_hub.loading import load_feature_extractor, load_model

    extractor = load_feature_extractor(path)
    model = load_model(path)
    assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values()), "weights that are not finite"
    assert extractor.num_frames > 0


def read_original(path: Path) -> None:
    """Convert a checkpoint of the authors."""
    import torch

    from usdrl_hub.hub.convert import convert_checkpoint

    model = convert_checkpoint(path)
    assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values()), "weights that are not finite"


def read_recipe(path: Path) -> None:
    """Load a recipe."""
    from usdrl_hub.facts.recipes import Recipe
    from usdrl_hub.pretraining.build import build_recipe, load_recipe

    recipe = load_recipe(path)
    assert isinstance(recipe, Recipe)
    build_recipe(recipe)


# --- Seeds ---------------------------------------------------------------------------------------------------------


def body_text(keypoints: np.ndarray, body: str, more: str) -> bytes:
    """Keypoints ``(T, M, V, 3)`` in the form of NTU and UAV-Human."""
    lines = [str(len(keypoints))]
    for frame in keypoints:
        lines.append(str(len(frame)))
        for person in frame:
            lines += [body, str(len(person)), *(" ".join(map(repr, joint)) + more for joint in person.tolist())]
    return ("\n".join(lines) + "\n").encode()


def _skeletons() -> list[Files]:
    line, more = "72057594037937100 0 1 1 1 1 0 0.02 0.05 2", " 0.5 0.5 0.5 0.5 0.5 0.5 0.5 0.5 2"
    shapes = ((2, 1), (1, 2), (3, 1))
    return [{NTU_NAME: body_text(bodies(*shape), line, more)} for shape in shapes]


def _uav() -> list[Files]:
    return [{UAV_NAME: body_text(bodies(frames, persons, 17), "1 0 0", "")} for frames, persons in ((2, 1), (1, 2))]


def _pku() -> list[Files]:
    rows = (bodies(frames, 2).reshape(frames, -1) for frames in (1, 3))
    return [{"0364-R.txt": "\n".join(" ".join(map(repr, row)) for row in part.tolist()).encode()} for part in rows]


@cache
def _arrays() -> list[np.ndarray]:
    return [
        bodies(4)[:, 0].astype(np.float32),
        bodies(12, 2),
        bodies(12, 2).transpose(3, 0, 2, 1).astype(np.float16),
        (bodies(12) * 1000).astype(np.int16),
    ]


def _npz() -> list[Files]:
    return [{"a.npz": pack({"keypoints.npy": npy(array)})} for array in _arrays()] + [
        {"a.npz": pack({"arr_0.npy": npy(bodies(12, 2))})}
    ]


def _data_sets() -> list[Files]:
    count, lengths = 3, np.array([2, 3, 1])
    shared = {"data": bodies(6).astype(np.float32), "offsets": np.cumsum([0, *lengths])}
    labelled = {
        **shared,
        "labels": np.array([0, 1, 0]),
        "subjects": np.array([1, 2, 3]),
        "names": np.array(["a", "b", "c"]),
        "class_names": np.array(["sit", "stand"]),
        "split_test": np.array([False, True, False]),
        "layout": np.array("ntu25"),
        "fps": np.array(30.0),
        "up": np.array("y"),
    }
    named = {
        **shared,
        "joint_names": np.array(get_layout("ntu25").joint_names[::-1]),
        "edges": np.array([[0, 1], [1, 2]]),
        "frame_labels": np.array([-1, 0, 0, 1, 1, -1]),
        "split_test": np.array([[True, False], [False, True], [False, False]]),
        "folds": np.arange(count),
        "subjects": np.array(["ada", "bob", "ada"]),
    }
    events = {**shared, "layout": np.array("ntu25"), "events": np.array([[0, 1, 0], [1, 2, 1], [2, 0, 0]])}
    sets = (labelled, named, events)
    return [{"a.npz": pack({f"{key}.npy": npy(array) for key, array in entries.items()})} for entries in sets]


def _csv() -> list[Files]:
    def table(keypoints: np.ndarray, axes: tuple[str, ...], first: str = "frame") -> bytes:
        names = [f"{joint}_{axis}" for joint in get_layout("coco17").joint_names for axis in axes]
        head = [*first.split(","), *names]
        rows = [
            ",".join([*(["0", "1"] if "," in first else [str(number)]), *map(repr, frame.ravel().tolist())])
            for number, frame in enumerate(keypoints)
        ]
        return "\n".join([",".join(head), *rows]).encode()

    return [
        {"a.csv": table(bodies(3, 1, 17, 3), ("x", "y", "score"))},
        {"a.csv": table(bodies(2, 1, 17, 2), ("x", "y"))},
        {"a.csv": table(bodies(1, 1, 17, 3), ("x", "y", "z"), "frame,person")},
    ]


def _tables() -> list[Files]:
    recordings = {"a.npy": npy(bodies(2)[:, 0]), "b.npy": npy(bodies(3)[:, 0])}
    rows = (
        b"file,label,subject,split\na.npy,sit,1,train\nb.npy,stand,2,test\n",
        b"file,label\na.npy,3\nb.npy,12\n",
        b"file,subject\na.npy,ada\nb.npy,\n",
    )
    return [{**recordings, "table.csv": text} for text in rows]


def _points(frames: int, joints: int, people: int = 1, seed: int = 0) -> list[list[list[float]]]:
    """x, y, score of the joints of people in frames."""
    return bodies(frames, people, joints, 3, seed).clip(0.01, 5).round(3).reshape(frames, people, -1).tolist()


def _json(*contents: Any) -> list[Files]:
    return [{"a.json": json.dumps(content).encode()} for content in contents]


def _openpose() -> list[Files]:
    people = [{"person_id": [-1], "pose_keypoints_2d": row} for row in _points(1, 25, 2)[0]]
    return _json({"people": people}, {"version": 1.3, "people": people[:1]})


def _alphapose() -> list[Files]:
    def detections(people: int, **more: Any) -> list[dict[str, Any]]:
        return [
            {"image_id": f"{frame}.jpg", "keypoints": row, "score": 1.0, **({"idx": who + 3} if more else {})}
            for frame, rows in enumerate(_points(2, 17, people))
            for who, row in enumerate(rows)
        ]

    return _json(detections(2, tracked=True), detections(1))


def _mmpose() -> list[Files]:
    def frames(people: int, tracked: bool) -> dict[str, Any]:
        return {
            "instance_info": [
                {
                    "frame_id": number + 1,
                    "instances": [
                        {
                            "keypoints": np.reshape(row, (17, 3))[:, :2].tolist(),
                            "keypoint_scores": [0.5] * 17,
                            **({"track_id": who} if tracked else {}),
                        }
                        for who, row in enumerate(rows)
                    ],
                }
                for number, rows in enumerate(_points(2, 17, people))
            ]
        }

    return _json(frames(1, False), frames(2, True))


def _mediapipe() -> list[Files]:
    landmarks = [
        {"x": x, "y": -y, "z": z, "visibility": 0.9} for x, y, z in np.reshape(_points(1, 33), (33, 3)).tolist()
    ]
    return _json(
        [{"pose_world_landmarks": [landmarks]}, {"pose_world_landmarks": []}],
        [{"pose_landmarks": [landmarks]}],
        [{"landmarks": landmarks}],
    )


def _json_arrays() -> list[Files]:
    return _json(bodies(3)[:, 0].tolist(), {"keypoints": bodies(12, 2).round(2).tolist(), "fps": 30})


def _estimated() -> list[Files]:
    def person(joints: int) -> dict[str, Any]:
        points = np.reshape(_points(1, joints), (joints, 3))
        entry = {"keypoints": points[:, :2].tolist(), "scores": points[:, 2].tolist()}
        return entry if joints == 17 else {**entry, "labels": list(range(joints))}

    return _json([[person(17)], [], [person(17), person(5)]], [[person(17)]])


def _series() -> list[Files]:
    def frames(tracked: bool) -> Files:
        files = {}
        for number, rows in enumerate(_points(3, 25, 2)):
            people = [
                {"person_id": [who if tracked else -1], "pose_keypoints_2d": row} for who, row in enumerate(rows)
            ]
            files[f"squat_{2 * number:012d}_keypoints.json"] = json.dumps({"people": people}).encode()
        return files

    return [frames(False), frames(True)]


def rename_frame(rng: random.Random, family: Family) -> Files:
    """A frame of another number, or of a number far away."""
    files = dict(rng.choice(family.seeds))
    content = files.pop(rng.choice(list(files)))
    number = rng.choice([0, 1, 3, 900, 10**6, 10**9, 10**12 - 1])
    return {**files, f"squat_{number:012d}_keypoints.json": content}


def _pyskl() -> Any:
    annotation = {
        "frame_dir": "S001C001P001R001A003",
        "label": np.int64(2),
        "img_shape": (1080, 1920),
        "original_shape": (1080, 1920),
        "total_frames": 2,
        "keypoint": bodies(2, 2, 17, 2).transpose(1, 0, 2, 3).astype(np.float16),
        "keypoint_score": np.full((2, 2, 17), 0.5, np.float16),
    }
    other = {**annotation, "frame_dir": "S001C001P002R001A004", "label": 3}
    return {"split": {"xsub_train": ["S001C001P001R001A003"]}, "annotations": [annotation, other]}


def _pickles() -> list[Files]:
    import pickle

    return [{"a.pkl": pickle.dumps(_pyskl(), protocol=protocol)} for protocol in (0, 2, 4, 5)]


def _files_of(make: Callable[[Path], Any]) -> Files:
    """The files that `make` writes below a folder."""
    with tempfile.TemporaryDirectory() as folder:
        made = make(Path(folder) / "made")
        place = Path(made if isinstance(made, str | Path) else Path(folder) / "made")
        paths = sorted(place.iterdir()) if place.is_dir() else [place]
        return {path.name: path.read_bytes() for path in paths if path.is_file()}


def _stores() -> list[Files]:
    from usdrl_hub import SkeletonSequence, write_store

    def make(dtype: str, path: Path) -> None:
        sequences = [
            SkeletonSequence(
                bodies(2 + number, 1 + number % 2, seed=number),
                name=f"s{number}",
                label=number % 2,
                subject=number if dtype == "int16" else "ada",
                fps=30.0,
                events=np.array([[0, 0, 1]]) if number else None,
                split="train" if number else "test",
            )
            for number in range(3)
        ]
        write_store(sequences, path, ["sit", "stand"], dtype)

    return [_files_of(partial(make, dtype)) for dtype in ("float32", "int16")]


def _tiny(encoder: str = "dste", **fields: Any) -> Any:
    import torch

    from usdrl_hub import USDRLConfig

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_frames": 8, "intermediate_size": 16}
    return USDRLConfig(encoder=encoder, layout="ntu25", **sizes, **fields)


def _checkpoints() -> list[Files]:
    from usdrl_hub import USDRLFeatureExtractor, USDRLForActionRecognition, USDRLModel

    def make(model_class: Any, path: Path) -> None:
        config = _tiny() if model_class is USDRLModel else _tiny("sttr", num_labels=3)
        model_class(config).save_pretrained(path)
        USDRLFeatureExtractor.from_model_config(config).save_pretrained(path)

    return [_files_of(partial(make, model_class)) for model_class in (USDRLModel, USDRLForActionRecognition)]


def _originals() -> list[Files]:
    import torch

    from usdrl_hub import USDRLForActionRecognition, USDRLForPreTraining
    from usdrl_hub.hub.convert import save_original

    projectors = {"stream_projector_sizes": [16, 16, 16], "instance_projector_sizes": [16, 16, 16]}

    def make(model_class: Any, encoder: str, path: Path) -> Path:
        more = {"num_labels": 3} if model_class is USDRLForActionRecognition else projectors
        path = save_original(model_class(_tiny(encoder, **more)), path.with_name("a.pth.tar"))
        # The archive is called after the file, which is called after this process while it is written.
        file = io.BytesIO()
        torch.save(torch.load(path, weights_only=True), file)
        path.write_bytes(file.getvalue())
        return path

    kinds = (
        (USDRLForActionRecognition, "sttr"),
        (USDRLForActionRecognition, "dste"),
        (USDRLForPreTraining, "sttr"),
    )
    return [_files_of(partial(make, *kind)) for kind in kinds]


def damage_original(rng: random.Random, content: bytes) -> bytes:
    """A torch archive with a damaged member and true checksums."""
    members = unpack(content)
    place = rng.randrange(len(members))
    if rng.random() < 0.5:
        place = next(number for number, (name, _) in enumerate(members) if name.endswith("data.pkl"))
    name, data = members[place]
    if name.endswith("data.pkl"):
        members[place] = (name, damage_opcodes(rng, data))
        return pack(members)
    kind = rng.randrange(5)
    if kind == 0:
        del members[place]
    elif kind == 1:
        members[place] = (rng.choice([name + "x", name.upper(), "../" + name, "x" * 500, ""]), data)
    elif kind == 2:
        members.append((name, data))
    elif kind == 3:
        other = rng.randrange(len(members))
        members[place], members[other] = (name, members[other][1]), (members[other][0], data)
    else:
        members[place] = (name, damage_bytes(rng, data))
    return pack(members)


def damage_state(rng: random.Random, content: bytes) -> bytes:
    """A checkpoint whose tensors are others: of another shape, type or name, lost, too many, not finite."""
    import torch

    checkpoint = torch.load(io.BytesIO(content), weights_only=True)
    state = checkpoint["state_dict"]
    for _ in range(rng.choice([1, 1, 2])):
        key, other = rng.choice(list(state)), rng.choice(list(state))
        tensor = state[key]
        if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point() or tensor.layout != torch.strided:
            continue
        kind = rng.randrange(9)
        if kind == 0:
            del state[key]
        elif kind == 1:
            state[key] = rng.choice(
                [
                    torch.ones(()),
                    tensor[None],
                    tensor.flatten(),
                    tensor.flatten()[:0],
                    torch.ones(10**4),
                    tensor.expand(2, *tensor.shape),
                ]
            )
        elif kind == 2:
            state[key] = tensor.to(
                rng.choice([torch.float64, torch.float16, torch.int64, torch.bool, torch.complex64])
            )
        elif kind == 3:
            value = rng.choice([float("nan"), float("inf"), 0.0, 1e38, 1e-44])
            state[key] = torch.full_like(tensor, value, dtype=torch.float64).to(tensor.dtype)
        elif kind == 4:
            state[rng.choice(["x" * 900, "fc.weight", key + ".1", key.replace("0", "1"), "module." + key, "\x1b"])] = (
                tensor
            )
        elif kind == 5:
            state[key] = state[other]
        elif kind == 6:
            state[key] = rng.choice([None, 1.5, "x", [], {}, [tensor]])
        elif kind == 7:
            change = rng.choice(
                [torch.Tensor.to_sparse, lambda it: torch.nn.Parameter(it.float()), lambda it: it.to("meta")]
            )
            # An earlier change may have left no values to convert.
            state[key] = tensor if tensor.is_meta else change(tensor)
        else:
            checkpoint[rng.choice(["epoch", "state_dict", "more"])] = rng.choice([None, 3, [1], {}, {"a": {}}, state])
            break
    file = io.BytesIO()
    torch.save(checkpoint, file)
    return file.getvalue()


RECIPES = [
    """about: A small model.
model: {hidden_size: 96, num_persons: 1, layout: ntu25}
extractor: {normalization: body, max_frames: null}
window: 200
loss: tpami
views: {corrupted_joints: 8, corruptible_joints: null, crop_ratio: [0.5, 1.0], mirror: 0.5}
synthetic_pairs: 0.0
training: {epochs: 30, batch_size: 96, learning_rate: 1.0e-3, optimizer: adamw, schedule: cosine, warmup: 0.1}
""",
    """model:
  hidden_size: 32
  num_persons: 2
  layout: coco17-release
  num_joints: 17
extractor:
  normalization: release-2d
  max_frames: 300
training:
  epochs: 451
  drop_epochs: [351]
  weight_decay: 1.0e-5
""",
]

_YAML = [
    b"&a [x, x, x]",
    b"*a",
    b"!!python/object/apply:os.system ['true']",
    b"!!binary aGk=",
    b"2001-01-01",
    b"1:30:00",
    b"0o17",
    b"{? [1, 2] : 3}",
    b"<<: {epochs: 3}",
    b"'",
    b"|",
    b"!!int x",
    b"!!float x",
    b"!!set {a, b}",
    b"1_000",
    b".nan",
    b".inf",
    b"[" * 900,
    b"- " * 900,
    b"!!timestamp 9999-99-99",
    b"? x",
]


def damage_yaml(rng: random.Random, content: bytes) -> bytes:
    """A recipe with other values in its tree, in its numbers, or written with odd parts of YAML."""
    kind = rng.randrange(9)
    if kind > 5:
        # Another recipe: a number that may do, or an entry less.
        tree = yaml.safe_load(content)
        part = rng.choice([tree, *(value for value in tree.values() if isinstance(value, dict))])
        key = rng.choice(list(part))
        if isinstance(part[key], dict) or rng.random() < 0.2:
            del part[key]
        else:
            part[key] = rng.choice(
                [0, 1, 2, 3, 8, 16, 25, 64, 0.1, 0.5, 0.9, 1e-4, "cosine", "none", "ntu25", None, True]
            )
        return json.dumps(tree).encode()
    if kind < 3:
        tree = damage_tree(rng, yaml.safe_load(content))
        text = json.dumps(tree, ensure_ascii=rng.random() < 0.7)
        return text.replace("NaN", ".nan").replace("Infinity", ".inf").encode("utf-8", "surrogatepass")
    if kind == 3:
        return damage_text(rng, content, b"\n,:")
    if kind == 4:
        if rng.random() < 0.2:
            # Each name is ten of the one before.
            lines = ["a0: &a0 x"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
            return content + "\n".join(lines + ["about: *a11"]).encode()
        return damage_bytes(rng, content)
    colons = [place for place, byte in enumerate(content) if byte in b":,[{"]
    place = rng.choice(colons) + 1
    end = rng.choice([place, place, min(e for e in (content.find(b, place) for b in (b",", b"\n", b"}")) if e > 0)])
    return content[:place] + b" " + rng.choice(_YAML) + content[end:]


# --- Motion capture ------------------------------------------------------------------------------------------------


def _squat(layout: str, frames: int = 3) -> tuple[list[str], list[int], np.ndarray]:
    from .motion_capture import MOTIONBUILDER, clip, tree

    names = [MOTIONBUILDER.get(name, name) for name in get_layout(layout).joint_names]
    return names, tree(layout), clip(layout)[:frames].round(3)


def _bvh() -> list[Files]:
    from .motion_capture import bvh

    names, parents, positions = _squat("smpl22")
    return [
        {"a.bvh": bvh(names, parents, positions * 100, moving=True, digits=2).encode()},
        {"a.bvh": bvh(names, parents, positions * 100, moving=False, digits=3).encode()},
        {
            "a.bvh": bvh(
                [f"mixamorig:{name}" for name in names], parents, positions, moving=False, order="XYZ"
            ).encode()
        },
    ]


def _amc() -> list[Files]:
    from .motion_capture import asf_amc, rigid

    _, parents, positions = _squat("cmu31")
    asf, amc = asf_amc(rigid(positions, parents))
    return [
        {"a.asf": asf.encode(), "a.amc": amc.encode()},
        {"only.asf": asf.encode(), "a.amc": amc[: amc.index("\n3\n") + 1].encode()},
    ]


def _c3d() -> list[Files]:
    from .motion_capture import c3d

    names, _, points = _squat("ui-prmd39")
    return [
        {"a.c3d": c3d(names, points * 1000)},
        {"a.c3d": c3d([f"S:{name}" for name in names], points, unit="m", scale=0.0001, processor=86, analog=2)},
        {"a.c3d": c3d(names, points * 1000, processor=85, residuals=np.eye(3, 39) * -1)},
    ]


def _trc() -> list[Files]:
    from .motion_capture import trc

    names, _, points = _squat("ui-prmd39")
    gaps = np.where(np.arange(39)[:, None] == 4, np.nan, points)
    joints = [name.replace("left_", "L_").replace("right_", "R_") for name in get_layout("coco17").joint_names]
    return [
        {"a.trc": trc(names, points * 1000, digits=1).encode()},
        {"a.trc": trc(names, gaps, unit="m", separator=",").encode()},
        {"a.trc": trc(joints, _squat("coco17")[2], unit="m", digits=3).encode()},
    ]


def _mvnx() -> list[Files]:
    from .motion_capture import mvnx

    return [{"a.mvnx": mvnx(_squat("xsens23")[2]).encode()}]


def _amass() -> list[Files]:
    from .motion_capture import amass

    sets = [amass(_squat("smpl22")[2], width=width) for width in (66, 156)]
    poses = sets[0]["poses"]
    sets.append({"root_orient": poses[:, :3], "pose_body": poses[:, 3:], "mocap_frame_rate": np.array(60)})
    return [{"a.npz": pack({f"{key}.npy": npy(array) for key, array in arrays.items()})} for arrays in sets]


def _pose() -> list[Files]:
    """``.pose`` files of versions 0.1 and 0.2, written without the package that reads them."""

    def text(value: str) -> bytes:
        return struct.pack("<H", len(value)) + value.encode()

    def made(version: float, component: str, joints: tuple[str, ...], points: np.ndarray) -> bytes:
        frames, people, _, dimensions = points.shape
        names = b"".join(text(name.upper()) for name in joints)
        header = struct.pack("<f4H", version, 640, 480, 0, 1) + text(component) + text("XYZC"[3 - dimensions :])
        header += struct.pack("<3H", len(joints), 1, 1) + names + struct.pack("<2H3H", 0, 1, 255, 0, 0)
        head = struct.pack("<3H" if version < 0.15 else "<fIH", 25, frames, people)
        return header + head + points.astype("<f4").tobytes() + np.full(points.shape[:3], 0.5, "<f4").tobytes()

    landmarks, body = get_layout("mediapipe33").joint_names, get_layout("openpose25").joint_names
    return [
        {"a.pose": made(0.2, "POSE_WORLD_LANDMARKS", landmarks, bodies(3, joints=33))},
        {"a.pose": made(0.2, "pose_keypoints_2d", body, bodies(3, persons=2, channels=2))},
        {"a.pose": made(0.1, "POSE_LANDMARKS", landmarks, bodies(3, joints=33))},
    ]


def damage_block(rng: random.Random, content: bytes, heads: tuple[tuple[int, int], ...]) -> bytes:
    """A file with bytes of its header or parameters changed, where each says how the rest is read.

    Args:
        heads: Where such bytes begin, and how many there are.
    """
    data = bytearray(content)
    places = [(start, size) for start, size in heads if start + size <= len(data)] + [(0, len(data))]
    for _ in range(rng.choice([1, 1, 2, 4])):
        start, size = rng.choice(places)
        place = start + rng.randrange(size)
        data[place] = rng.choice([0, 1, 2, 127, 128, 255, data[place] ^ 1 << rng.randrange(8), rng.randrange(256)])
    return bytes(data)


_XML = [b"<!DOCTYPE x>", b"<!-- x -->", b"<![CDATA[1 2]]>", b"&amp;", b"&a;", b"<position>", b"</frame>", b"<x" * 500]


def damage_xml(rng: random.Random, content: bytes) -> bytes:
    """XML with an element lost, repeated or moved, or with odd parts of XML in it."""
    elements = content.split(b"<")
    place, other = rng.randrange(len(elements)), rng.randrange(len(elements))
    kind = rng.randrange(4)
    if kind == 0:
        del elements[place : place + rng.choice([1, 2, 9])]
    elif kind == 1:
        elements[place:place] = elements[place : place + rng.choice([1, 2, 9])] * rng.choice([1, 2, 40])
    elif kind == 2:
        elements[place], elements[other] = elements[other], elements[place]
    else:
        elements[place] += rng.choice(_XML)
    return b"<".join(elements)


# --- All of them ---------------------------------------------------------------------------------------------------


def _of_array(rng: random.Random, family: Family) -> Files:
    return {"a.npy": damage_npy(rng, rng.choice(_arrays()))}


def _of_pickle(rng: random.Random, family: Family) -> Files:
    return {"a.pkl": damage_pickle(rng, _pyskl())}


def _of_annotations(rng: random.Random, family: Family) -> Files:
    return {"a.pkl": damage_pickle(rng, rng.choice(fuzz_formats.annotations()))}


def _of_agcn(rng: random.Random, family: Family) -> Files:
    files = dict(family.seeds[0])
    if rng.random() < 0.5:
        files["train_data_joint.npy"] = damage_npy(rng, fuzz_formats.agcn_array())
    else:
        files["train_label.pkl"] = damage_pickle(rng, (["a", "b", "c"], [0, 1, 2]))
    return files


def _text(separators: bytes, suffix: str = "") -> list[Mutation]:
    return [any_bytes(suffix), *[of_file(partial(damage_text, separators=separators), suffix)] * 2]


_JSON = [
    any_bytes(".json"),
    of_file(partial(damage_text, separators=b",\n"), ".json"),
    *[of_file(damage_json, ".json")] * 3,
]
_SPACES, _CELLS, _WORDS = b"\n\n ", b"\n,", b"\n "

_FAMILIES: dict[str, Callable[[], dict[str, Any]]] = {
    "skeleton": lambda: {
        "seeds": _skeletons(),
        "target": NTU_NAME,
        "read": read_recordings,
        "mutations": _text(_SPACES),
    },
    "uav": lambda: {"seeds": _uav(), "target": UAV_NAME, "read": read_recordings, "mutations": _text(_SPACES)},
    "pku-skeleton": lambda: {
        "seeds": _pku(),
        "target": "0364-R.txt",
        "read": read_recordings,
        "mutations": _text(_SPACES),
    },
    "pku-labels": lambda: {
        "seeds": [{"0364-R.txt": b"41,10,55,1\n7,90,120,1\n3,130,99,2"}, {"0364-R.txt": b"1,2,3\n"}],
        "target": "0364-R.txt",
        "read": read_labels,
        "mutations": _text(_CELLS),
    },
    "pku-split": lambda: {
        "seeds": [
            {"split.txt": b"Training videos:\n0002-L, 0002-M, 0003-R, \nValidation videos:\n0291-L, 0291-M, \n"}
        ],
        "target": "split.txt",
        "read": read_split,
        "mutations": _text(_CELLS),
    },
    "npy": lambda: {
        "seeds": [{"a.npy": npy(array)} for array in _arrays()],
        "target": "a.npy",
        "read": read_recordings,
        "mutations": [any_bytes(), *[_of_array] * 4],
    },
    "npz": lambda: {
        "seeds": _npz(),
        "target": "a.npz",
        "read": read_recordings,
        "mutations": [any_bytes(), *[of_file(damage_npz)] * 3],
    },
    "npz-data-set": lambda: {
        "seeds": _data_sets(),
        "target": "a.npz",
        "read": read_data_set,
        "mutations": [any_bytes(), *[of_file(damage_npz)] * 5],
    },
    "csv": lambda: {
        "seeds": _csv(),
        "target": "a.csv",
        "read": partial(read_recordings, layout="coco17"),
        "mutations": _text(_CELLS),
    },
    "csv-forms": lambda: {
        "seeds": fuzz_formats.tables(),
        "target": "a.csv",
        "read": read_recordings,
        "mutations": _text(b"\n,;"),
    },
    "number-text": lambda: {
        "seeds": fuzz_formats.numbers(),
        "target": "a.txt",
        "read": read_recordings,
        "mutations": _text(b"\n ,\t"),
    },
    "csv-table": lambda: {
        "seeds": _tables(),
        "target": "table.csv",
        "read": read_table,
        "mutations": [*_text(_CELLS, ".csv"), lose_file],
    },
    "openpose": lambda: {"seeds": _openpose(), "target": "a.json", "read": read_recordings, "mutations": _JSON},
    "alphapose": lambda: {"seeds": _alphapose(), "target": "a.json", "read": read_recordings, "mutations": _JSON},
    "mmpose": lambda: {"seeds": _mmpose(), "target": "a.json", "read": read_recordings, "mutations": _JSON},
    "mediapipe": lambda: {"seeds": _mediapipe(), "target": "a.json", "read": read_recordings, "mutations": _JSON},
    "json-array": lambda: {"seeds": _json_arrays(), "target": "a.json", "read": read_recordings, "mutations": _JSON},
    "json-poses": lambda: {"seeds": _estimated(), "target": "a.json", "read": read_recordings, "mutations": _JSON},
    "series": lambda: {
        "seeds": _series(),
        "target": "squat_*_keypoints.json",
        "read": read_recordings,
        "mutations": [*_JSON, lose_file, rename_frame],
    },
    **{
        name: lambda seeds=seeds: {"seeds": seeds(), "target": "a.json", "read": read_recordings, "mutations": _JSON}
        for name, seeds in {
            "ultralytics": fuzz_formats.ultralytics,
            "mmpose-forms": fuzz_formats.mmpose,
            "mediapipe-forms": fuzz_formats.mediapipe,
            "coco": fuzz_formats.coco,
            "kinetics-skeleton": fuzz_formats.kinetics,
            "azure-kinect": fuzz_formats.azure,
            "keraal": fuzz_formats.keraal,
        }.items()
    },
    "json-lines": lambda: {
        "seeds": fuzz_formats.json_lines(),
        "target": "a.json",
        "read": read_recordings,
        "mutations": [any_bytes(".json"), *[of_file(partial(damage_text, separators=b",\n"), ".json")] * 2],
    },
    "panoptic": lambda: {
        "seeds": fuzz_formats.panoptic(),
        "target": "body3DScene_*.json",
        "read": read_recordings,
        "mutations": [*_JSON, lose_file],
    },
    "ultralytics-labels": lambda: {
        "seeds": fuzz_formats.labels(),
        "target": "film_*.txt",
        "read": read_recordings,
        "mutations": [*_text(_SPACES, ".txt"), lose_file],
    },
    "pyskl": lambda: {
        "seeds": _pickles(),
        "target": "a.pkl",
        "read": read_tolerantly,
        "mutations": [any_bytes(), of_file(damage_opcodes), *[_of_pickle] * 3],
    },
    "bvh": lambda: {"seeds": _bvh(), "target": "a.bvh", "read": read_recordings, "mutations": _text(_WORDS)},
    "amc": lambda: {
        "seeds": _amc(),
        "target": "a.amc",
        "read": read_recordings,
        "mutations": [*_text(_WORDS, ".amc"), *_text(_WORDS, ".asf"), lose_file],
    },
    "c3d": lambda: {
        "seeds": _c3d(),
        "target": "a.c3d",
        "read": read_recordings,
        "mutations": [any_bytes(), *[of_file(partial(damage_block, heads=((0, 24), (512, 4), (512, 200))))] * 2],
    },
    "pose": lambda: {
        "seeds": _pose(),
        "target": "a.pose",
        "read": read_recordings,
        "mutations": [any_bytes(), *[of_file(partial(damage_block, heads=((0, 40), (0, 600))))] * 2],
    },
    "trc": lambda: {"seeds": _trc(), "target": "a.trc", "read": read_recordings, "mutations": _text(b"\n\t,")},
    "mvnx": lambda: {
        "seeds": _mvnx(),
        "target": "a.mvnx",
        "read": read_recordings,
        "mutations": [*_text(_WORDS), *[of_file(damage_xml)] * 2],
    },
    "amass": lambda: {
        "seeds": _amass(),
        "target": "a.npz",
        "read": read_recordings,
        "mutations": [any_bytes(), *[of_file(damage_npz)] * 3],
    },
    "pickle-forms": lambda: {
        "seeds": [{"a.pkl": pickle.dumps(content)} for content in fuzz_formats.annotations()],
        "target": "a.pkl",
        "read": read_tolerantly,
        "mutations": [any_bytes(), of_file(damage_opcodes), *[_of_annotations] * 3],
    },
    "agcn": lambda: {
        "seeds": fuzz_formats.agcn(),
        "target": "train_data_joint.npy",
        "read": read_tolerantly,
        "mutations": [any_bytes(), *[_of_agcn] * 3],
    },
    "ctr-gcn": lambda: {
        "seeds": fuzz_formats.ctr_gcn(),
        "target": "a.npz",
        "read": read_tolerantly,
        "mutations": [any_bytes(), *[of_file(damage_npz)] * 3],
    },
    "store": lambda: {
        "seeds": _stores(),
        "target": "",
        "read": read_store,
        "mutations": [
            any_bytes(),
            *[of_file(damage_json, "store.json")] * 3,
            *[of_file(damage_safetensors, "index.safetensors")] * 3,
            of_file(damage_safetensors, ".safetensors"),
            lose_file,
        ],
        "in_tests": 50,
    },
    "checkpoint": lambda: {
        "seeds": _checkpoints(),
        "target": "",
        "read": read_checkpoint,
        "mutations": [
            any_bytes(),
            *[of_file(damage_json, "config.json")] * 3,
            *[of_file(damage_safetensors, ".safetensors")] * 2,
            lose_file,
        ],
        "in_tests": 50,
    },
    "pth.tar": lambda: {
        "seeds": _originals(),
        "target": "a.pth.tar",
        "read": read_original,
        "mutations": [any_bytes(), *[of_file(damage_original)] * 2, *[of_file(damage_state)] * 2],
        "in_tests": 50,
    },
    "recipe": lambda: {
        "seeds": [{"a.yaml": text.encode()} for text in RECIPES],
        "target": "a.yaml",
        "read": read_recipe,
        "mutations": [of_file(damage_yaml)],
    },
}

FAMILIES = tuple(_FAMILIES)
# Those whose files are text, or made of many parts, and may be long.
LONG = tuple(
    name
    for name in FAMILIES
    if name not in ("npy", "npz", "npz-data-set", "amass", "c3d", "pose", "store", "checkpoint", "pth.tar")
)


@cache
def family(name: str) -> Family:
    """A family by its name, one of `FAMILIES`."""
    return Family(name, **_FAMILIES[name]())
