"""Model cards, rendered from a checkpoint's configuration, its ``metrics.json`` and the registry, never typed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from string import Template
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from ..configuration_usdrl import USDRLConfig
from ..feature_extraction_usdrl import USDRLFeatureExtractor
from ..files import new_file
from ..layouts import get_layout
from .registry import CHECKPOINTS, Checkpoint, checkpoint_path, list_checkpoints

_TEMPLATE = Path(__file__).parent / "card_template.md"
_METRIC_NAMES = {
    "accuracy": "top-1 accuracy",
    "top5_accuracy": "top-5 accuracy",
    "baseline_1nn_raw": "1-NN on the raw joints, no model",
    "baseline_1nn_centered": "1-NN on the raw joints without the mean position, no model",
}


def render_card(folder: str | Path, checkpoint: Checkpoint) -> str:
    """Render the card of a checkpoint folder.

    Args:
        folder: Folder with ``config.json``, ``preprocessor_config.json``, weights and ``metrics.json``.
        checkpoint: What the registry knows about it.

    Returns:
        Markdown with a metadata header that the hub reads.
    """
    folder = Path(folder)
    config = USDRLConfig.from_pretrained(folder)
    extractor = USDRLFeatureExtractor.from_pretrained(folder)
    record = json.loads((folder / "metrics.json").read_text())
    values = _values(folder, checkpoint, config, extractor, record)
    return f"---\n{_metadata(checkpoint, record)}\n---\n\n{Template(_TEMPLATE.read_text()).substitute(values)}"


def _metadata(checkpoint: Checkpoint, record: dict[str, Any]) -> str:
    results = [
        EvalResult(
            task_type="video-classification",
            task_name=record["task"],
            dataset_type=checkpoint.dataset.split()[0].lower(),
            dataset_name=checkpoint.dataset,
            metric_type="accuracy",
            metric_name=_METRIC_NAMES[name],
            metric_value=round(100 * record["metrics"][name], 2),
        )
        for name in ("accuracy", "top5_accuracy")
        if name in record["metrics"]
    ]
    return ModelCardData(
        license=checkpoint.license,
        library_name="usdrl_hub",
        pipeline_tag="video-classification",
        tags=["skeleton", "action-recognition", "usdrl"],
        model_name=checkpoint.name,
        eval_results=results,
    ).to_yaml()


def _values(
    folder: Path,
    checkpoint: Checkpoint,
    config: USDRLConfig,
    extractor: USDRLFeatureExtractor,
    record: dict[str, Any],
) -> dict[str, Any]:
    layout = get_layout(config.layout) if config.layout else None
    num_bytes = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    rows = ["| metric | % | test clips |", "|---|---|---|"]
    for name, value in record["metrics"].items():
        rows.append(f"| {_METRIC_NAMES.get(name, name)} | {100 * value:.1f} | {record['n']['test']} |")
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items() if number)
    return {
        **{key: getattr(checkpoint, key) for key in Checkpoint.__dataclass_fields__},
        "task": record["task"],
        "architecture": (
            f"{config.encoder.upper()}, {config.num_hidden_layers} layers per stream, hidden size "
            f"{config.hidden_size}, {config.num_attention_heads} head(s), modality {config.modality}"
        ),
        "input": (
            f"{config.num_frames} frames, {config.num_persons} person(s), {config.num_joints} joints"
            + (f" of layout `{layout.name}`" if layout else "")
            + f", {config.num_channels} coordinates; metres, {layout.up if layout else 'y'} up"
        ),
        "preprocessing": _preprocessing(extractor),
        "size": f"{num_bytes / 1e6:.2f} MB of safetensors",
        "embedding_size": 2 * config.hidden_size,
        "classes": ", ".join(config.class_names),
        "split": record["split"],
        "n_train": record["n"]["train"],
        "n_test": record["n"]["test"],
        "seed": record["seed"],
        "command": record["command"],
        "wall_seconds": record["wall_seconds"],
        "hardware": record["hardware"],
        "versions": versions,
        "revision": f", at revision {record['git_revision']}" if record["git_revision"] else "",
        "results": "\n".join(rows),
        "checkpoint_sha256": record["checkpoint_sha256"],
    }


def _preprocessing(extractor: USDRLFeatureExtractor) -> str:
    names = get_layout(extractor.layout).joint_names
    steps = [] if extractor.normalization == "none" else ["empty frames filled"]
    if extractor.center_joint is not None:
        steps.append(f"`{names[extractor.center_joint]}` of the first person at the origin of each frame")
    for axis, joints in (("+z", extractor.z_axis), ("+x", extractor.x_axis)):
        if joints:
            steps.append(f"`{names[joints[0]]}` to `{names[joints[1]]}` turned onto {axis}")
    steps.append(f"frames resized linearly to {extractor.num_frames}")
    frames = "all frames" if extractor.max_frames is None else f"at most {extractor.max_frames} frames"
    return f"{frames}; " + ", ".join(steps)


def write_cards(folder: str | Path) -> list[Path]:
    """Write the card of every checkpoint that ships in the package, also beside its weights.

    Args:
        folder: Where the cards go, one file per checkpoint.
    """
    written = []
    for info in list_checkpoints():
        card = render_card(checkpoint_path(info.name), CHECKPOINTS[info.name])
        for path in (Path(folder) / f"{info.name.split('/')[1]}.md", checkpoint_path(info.name) / "README.md"):
            with new_file(path) as partial:
                partial.write_text(card)
            written.append(path)
    return written


if __name__ == "__main__":
    for card in write_cards(sys.argv[1]):
        print(card)
