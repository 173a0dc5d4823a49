"""The data of a model card, and its examples of commands and code."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from ..configuration_usdrl import USDRLConfig
from ..data.remote import HubAddress
from ..facts.checkpoints import Checkpoint, find_checkpoint
from ..facts.datasets import DATASETS, DatasetFacts
from ..feature_extraction_usdrl import USDRLFeatureExtractor
from ..loading import MissingPreprocessorError, load_feature_extractor, model_class
from ..lookup import checkpoint_name
from ..modeling_usdrl import USDRLPreTrainedModel
from .evaluations import address_of
from .licenses import UNKNOWN, data_license, license_of
from .listing import feature_extractor, model_config, num_bytes


@dataclass(frozen=True)
class CardSource:
    """The data of a model card.

    Attributes:
        name: Repository name.
        config: The model's configuration.
        extractor: Its feature extractor, if it has one.
        record: Content of its ``metrics.json``, or empty.
        num_bytes: Size of its weights in bytes.
        entry: Its entry in the registry, if any.
        has_weights: Whether the weights are available.
        has_code: Whether the repository contains the model's code, for transformers without this package.
        wanted_license: The licence that its owner names; the one that follows from its encoder and data where None.
    """

    name: str
    config: USDRLConfig
    extractor: USDRLFeatureExtractor | None
    record: Mapping[str, Any]
    num_bytes: int
    entry: Checkpoint | None
    has_weights: bool
    has_code: bool = True
    wanted_license: str | None = None

    @classmethod
    def of_entry(cls, entry: Checkpoint) -> CardSource:
        """From an entry of the registry, with its files if it has a folder."""
        if entry.folder is not None:
            return cls.of_folder(entry.folder, entry.name)
        return cls(entry.name, model_config(entry), feature_extractor(entry), {}, num_bytes(entry.name), entry, False)

    @classmethod
    def of_folder(cls, folder: str | os.PathLike, name: str) -> CardSource:
        """From a checkpoint's folder and the name of its repository.

        Raises:
            ValueError: If its ``metrics.json`` is damaged.
            CheckpointLoadError: If its feature extractor cannot be loaded.
        """
        folder = Path(folder)
        config = USDRLConfig.from_pretrained(folder)
        try:
            extractor = load_feature_extractor(folder)
        except MissingPreprocessorError:
            extractor = None
        path = folder / "metrics.json"
        try:
            record = json.loads(path.read_text("utf-8")) if path.is_file() else {}
            if not isinstance(record, dict):
                raise ValueError
        except ValueError:
            raise ValueError(f"{path}: it is not a metrics.json of this package: repair or delete it") from None
        size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        return cls(name, config, extractor, record, size, find_checkpoint(name), True)

    @property
    def head(self) -> type[USDRLPreTrainedModel]:
        """The model's class."""
        return model_class(self.config)

    @property
    def task(self) -> str:
        """The task of the model's head."""
        return self.head.task

    @property
    def license(self) -> str:
        """Licence of the weights, in the hub's spelling; see `licenses.license_of`.

        Raises:
            ValueError: If the owner's allows more than that of the encoder or the data.
        """
        if self.entry is not None:
            return license_of({self.entry.name: self.entry.license}, self.wanted_license)
        sources = self.record.get("licenses")
        if isinstance(sources, dict):
            return license_of({str(name): str(value) for name, value in sources.items()}, self.wanted_license)
        # Of an encoder that the record does not name nothing is known.
        names = self.record.get("dataset") or []
        known = {str(name): data_license(name) for name in (names if isinstance(names, list) else [names])}
        return license_of({**known, "its encoder": UNKNOWN}, self.wanted_license)

    @property
    def data(self) -> DatasetFacts:
        """The training data; unknown fields read "not stated"."""
        if self.entry is not None:
            return self.entry.facts
        name = self.record.get("dataset") or ""
        name = " and ".join(map(str, name)) if isinstance(name, list) else str(name)
        title = name or "not stated"
        if address := self.hub_data:
            licenses = self.record.get("licenses")
            terms = str(licenses.get(name, "not stated")) if isinstance(licenses, dict) else "not stated"
            return DatasetFacts(name, title, f"https://huggingface.co/datasets/{address.repo_id}", terms, "", "")
        return DATASETS.get(Path(name).stem, DatasetFacts(name, title, "no address stated", "not stated", "", ""))

    @property
    def hub_data(self) -> HubAddress | None:
        """Address of the training data on the hub, with the commit; None where they are not of the hub."""
        return address_of(self.record)


def base_model(model: Any) -> str | None:
    """The name by which others find the encoder that a model was trained from; None for one of this machine only.

    Args:
        model: A checkpoint's name or folder, or a model; None for random weights.
    """
    name = str(model if isinstance(model, str | os.PathLike) else getattr(model, "name_or_path", "") or "")
    name = checkpoint_name(name) or name
    if (entry := find_checkpoint(name)) is not None:
        return entry.name
    try:
        validate_repo_id(name)
    except HFValidationError:
        return None
    return name if "/" in name and not os.path.exists(name) else None


def limits(source: CardSource) -> str:
    """What a model cannot do: as the registry says, or what its record says of the data that it was trained on."""
    record = source.record
    if source.entry is not None:
        return source.entry.limits
    numbers, groups = dict(record.get("n") or {}), dict(record.get("groups") or {})
    if not numbers:
        return "Not stated by the model's authors."
    parts = []
    for verb, part in (("trained on", "train"), ("tested on", "test")):
        if isinstance(numbers.get(part), int):
            known = groups.get("by") == "subject" and isinstance(groups.get(part), int)
            people = f" of {groups[part]} {'person' if groups[part] == 1 else 'people'}" if known else ""
            parts.append(f"{verb} {numbers[part]} clips{people}")
    classes = f", with {source.config.num_labels} classes" if source.task == "recognition" else ""
    layout = f" Its joints are those of `{source.config.layout}`." if isinstance(source.config.layout, str) else ""
    text = (
        f"It was {' and '.join(parts)}{classes}.{layout} Other movements, people, rooms and sensors than those of the "
        "data are untested."
    )
    if "groups" not in record:
        # Older records have the rule only.
        text += f" The split: {record['split']}." if isinstance(record.get("split"), str) else ""
    elif not groups.get("by"):
        text += " Who moves was not known, so the same people may be on both sides of the split."
    elif groups.get("shared"):
        text += f" {groups['shared']} of the people or groups are on both sides of the split."
    warnings = record.get("warnings")
    return " ".join([text, *map(str, warnings)]) if isinstance(warnings, list) else text


def commands(source: CardSource) -> str:
    """Examples of ``usdrl`` commands."""
    name = source.name
    layout = source.extractor and (source.extractor.source_layout or source.extractor.layout)
    # Of a file that says its joints the option is refused; arrays say nothing.
    given = f" --layout {layout}" if isinstance(layout, str) and source.entry is None else ""
    is_recogniser = source.task == "recognition"
    lines = [f"usdrl embed recordings/ --model {name} --output embeddings.npz"]
    if is_recogniser:
        lines.insert(0, f"usdrl predict recording.npy --model {name}{given}")
    if source.entry is not None and source.entry.folder is not None:
        lines = [
            "usdrl demo --output-dir demo-output          # writes sample recordings",
            f"usdrl predict demo-output/uiprmd-samples.npz --model {name}"
            if is_recogniser
            else f"usdrl map demo-output/uiprmd-samples.npz --model {name} --output map.html",
            *lines,
        ]
    if source.task == "embedding":
        lines.append(f"usdrl finetune labelled.npz --model {name} --output-dir recogniser")
    return "\n".join(lines)


def library_code(source: CardSource) -> str:
    """Example of Python code with this package."""
    name, kind = source.name, source.head.__name__
    if source.task == "recognition":
        return (
            "from usdrl_hub import extract_embeddings, iter_predictions\n\n"
            f'for prediction in iter_predictions("recording.npy", model="{name}"):\n'
            "    print(prediction.sequence.name, prediction.top(3))\n"
            f'embeddings = extract_embeddings("recordings/", model="{name}")  '
            f"# (recordings, {source.config.clip_embedding_size})"
        )
    lines = [
        f"from usdrl_hub import {kind}, USDRLFeatureExtractor, read_skeleton\n",
        f'extractor = USDRLFeatureExtractor.from_pretrained("{name}")',
        f'model = {kind}.from_pretrained("{name}").eval()',
        'clip = extractor(read_skeleton("recording.npy"), return_tensors="pt")',
    ]
    if source.task == "embedding":
        field = "pooler_output" if source.config.readout_parts is None else "readout"
        lines.append(f"embedding = model(**clip).{field}  # (1, {source.config.clip_embedding_size})")
    elif source.task == "segmentation":
        lines[0] = "import torch\n" + lines[0]
        lines.append("windows = clip.keypoints[:, None]  # one window per recording; see usdrl_hub.inference.windows")
        lines.append("logits = model(windows, window_starts=torch.zeros(1, 1, dtype=torch.long)).logits")
    elif source.task == "pretraining":
        lines.append("projection = model(**clip).instance_projection")
    else:
        lines.append("logits = model(**clip).logits  # scores for every frame")
    return "\n".join(lines)


def auto_class_code(source: CardSource) -> str:
    """Example of Python code with transformers' Auto classes."""
    auto, name = source.head.auto_class, source.name
    lines = [f"from transformers import AutoFeatureExtractor, {auto}"]
    if not source.has_code:
        lines.append("import usdrl_hub  # registers the model with transformers")
    lines.append("")
    if source.entry is not None and source.entry.folder is not None:
        lines.append(f'name = "{name}"  # offline, with the package: usdrl_hub.checkpoint_path(name)')
    else:
        lines.append(f'name = "{name}"')
    code = ", trust_remote_code=True" if source.has_code else ""
    lines += [
        f"extractor = AutoFeatureExtractor.from_pretrained(name{code})",
        f"model = {auto}.from_pretrained(name{code})",
    ]
    return "\n".join(lines)
