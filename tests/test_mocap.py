"""Quality of the shipped encoders on clips of people that they were not trained on."""

import importlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from usdrl_hub import LAYOUTS, SkeletonSequence, USDRLFeatureExtractor, USDRLModel, checkpoint_path, get_layout
from usdrl_hub.data.samples import load_samples
from usdrl_hub.inference.embedding import embed_clips
from usdrl_hub.layouts import weights_through
from usdrl_hub.metrics.retrieval import top_k
from usdrl_hub.pretraining.build import load_recipe
from usdrl_hub.records import sha256
from usdrl_hub.tasks.linear import fit_logistic_regression

NAME = "usdrl/mocap-tiny"
ENCODERS = (NAME, "usdrl/mocap-2d")
ROOT = Path(__file__).parents[1]
BETWEEN = [
    name
    for name, layout in LAYOUTS.items()
    if name != "ui-prmd39"
    and weights_through(get_layout("ui-prmd39"), layout, get_layout("ntu25"), min_joints=15) is not None
]


@pytest.fixture(scope="module")
def extractor():
    return USDRLFeatureExtractor.from_pretrained(NAME)


@pytest.fixture(scope="module")
def model():
    return USDRLModel.from_pretrained(NAME).eval()


@pytest.fixture(scope="module")
def clips(extractor):
    return [extractor.prepare(sample) for sample in load_samples()]


@pytest.fixture(scope="module")
def native(model, extractor, clips):
    return embed_clips(model, extractor.clips(clips)).clone()


@pytest.fixture(scope="module")
def head(native):
    """Trained on the clips converted at once; benchmarks/mocap.py has other people for it, and more of them."""
    labels = torch.tensor([sample.label for sample in load_samples()])
    head = fit_logistic_regression(native, labels, 10)
    with torch.no_grad():
        assert (head(native).argmax(1) == labels).float().mean() > 0.95
    return head


@pytest.fixture(scope="module")
def mocap():
    """The benchmark's module, and what it has measured."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        module = importlib.import_module("mocap")
    return module, json.loads((ROOT / "benchmarks" / "mocap.json").read_text())


def test_each_encoder_of_the_benchmarks_has_a_recipe(mocap):
    motion = importlib.import_module("motion")
    for name in motion.MODELS:
        assert load_recipe(motion.recipe_of(name)).views, name


def test_the_tables_of_the_readme_are_what_was_measured(mocap):
    readme, tables = (ROOT / "benchmarks" / "README.md").read_text(), mocap[0].tables(mocap[1])
    assert len(tables) >= 3 and all(len(table.splitlines()) > 2 for table in tables)
    for table in tables:
        assert f"\n{table}\n\n" in readme, (
            "bring it up to date with 'python benchmarks/mocap.py table benchmarks/README.md'"
        )


@pytest.mark.parametrize("name", [*ENCODERS, "usdrl/mocap-base"])
def test_the_figures_that_ship_are_what_was_measured(mocap, name):
    module, content = mocap
    folder = checkpoint_path(name)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["checkpoint_sha256"] == sha256(folder / "model.safetensors")
    for part in (metrics, metrics["final"]):
        sets = part["dataset"].split(", ")
        assert tuple(sets) in module.GROUPS.values() and len(part["few_labels"]) >= 6
        for row in part["few_labels"]:
            for shots, accuracy in row["accuracy"].items():
                expected = module.mean_accuracy(content, sets, row["measure"], row["who"], shots)
                assert 100 * accuracy == pytest.approx(expected)


def test_it_is_better_than_the_joints_and_random_weights(mocap):
    """On sets that it was not pretrained on; as nearest neighbour, older weights were level with the joints."""
    module, content = mocap
    tests = module.GROUPS["development"]
    for measure, rival, least in (
        ("1nn", "normalised", 3),
        ("linear", "normalised", 5),
        ("linear", "mocap-tiny random", 3),
    ):
        ours, theirs = (module.mean_accuracy(content, tests, measure, who, "5") for who in ("mocap-tiny", rival))
        assert ours - theirs > least
    ours, theirs = (module.mean_accuracy(content, tests, "1nn", who, "all") for who in ("mocap-tiny", "normalised"))
    assert ours > theirs


def test_the_flat_encoder_is_better_than_the_joints_and_random_weights(mocap):
    module, content = mocap
    tests = module.GROUPS["development-2d"]
    for measure in ("1nn", "linear"):
        for shots in ("5", "all"):
            ours, *others = (
                module.mean_accuracy(content, tests, measure, who, shots)
                for who in ("mocap-2d", "mocap-2d random", "normalised", "joints")
            )
            assert ours - max(others) > 8


def test_the_flat_encoder_reads_bodies_of_any_estimator_at_any_size():
    """Sample clips as a camera in front of them sees them, with the joints of COCO and of OpenPose."""
    extractor, model = (kind.from_pretrained(ENCODERS[1]) for kind in (USDRLFeatureExtractor, USDRLModel))
    seen = {}
    for layout, size in (("coco17", 300), ("openpose25", 80)):
        flat = [
            clip.to_layout(LAYOUTS["ntu25"]).keypoints[..., :2] * np.float32([size, -size]) for clip in load_samples()
        ]
        rows = [SkeletonSequence(clip + np.float32(4 * size), "ntu25").to_layout(LAYOUTS[layout]) for clip in flat]
        seen[layout] = embed_clips(model.eval(), extractor(rows, return_tensors="pt")["keypoints"])
    found = top_k(seen["openpose25"], seen["coco17"], 1)[1][:, 0] == torch.arange(len(seen["coco17"]))
    assert found.float().mean() >= 0.9


def test_differences_are_of_pairs_of_clips_and_classes_can_count_alike(mocap):
    module, _ = mocap
    hits = np.array([True, True, True, False, False, True])
    content = {
        "sets": {f"{name} 0": {"labels": [0, 0, 0, 0, 1, 1]} for name in ("utd_mhad", "tennis_movenet2d")},
        "hits": {
            name: {"1nn": {"a": {"5": {"0": module.packed(torch.from_numpy(hits))}}}}
            for name in ("utd_mhad", "tennis_movenet2d")
        },
    }
    assert module.mean_accuracy(content, ["utd_mhad"], "1nn", "a", "5") == pytest.approx(100 * 4 / 6)
    # Three of four clips of one class and one of two of the other.
    assert module.mean_accuracy(content, ["tennis_movenet2d"], "1nn", "a", "5") == pytest.approx(62.5)
    same = {"utd_mhad": [hits, hits]}
    assert module.difference(same, same) == (0, 0, 0)
    mean, low, high = module.difference(same, {"utd_mhad": [~hits, ~hits]})
    assert mean == pytest.approx(1 / 3) and low < mean < high
    assert np.isnan(module.mean_accuracy(content, ["utd_mhad", "sbu"], "1nn", "a", "5"))


@pytest.mark.parametrize("name", ENCODERS)
def test_it_is_small_and_lies_in_the_package(name):
    files = list(checkpoint_path(name).glob("*.safetensors"))
    assert 0 < sum(file.stat().st_size for file in files) <= 8_000_000


@torch.no_grad()
@pytest.mark.parametrize("name", BETWEEN)
def test_clips_by_way_of_another_layout_get_the_same_class(model, extractor, native, head, name):
    source, target = get_layout("ui-prmd39"), get_layout("ntu25")
    weights = weights_through(source, LAYOUTS[name], target, min_joints=15)
    # z up to y up.
    bodies = [sample.keypoints[..., [0, 2, 1]] * np.float32([1, 1, -1]) for sample in load_samples()]
    features = embed_clips(
        model,
        extractor([SkeletonSequence(weights @ body, target) for body in bodies], return_tensors="pt")["keypoints"],
    )
    same = head(features.clone()).argmax(1) == head(native).argmax(1)
    assert same.float().mean() >= 0.9


def test_half_of_the_joints_are_enough_to_know_a_clip_again(model, extractor, clips, native):
    rng, half = np.random.default_rng(0), []
    for clip in clips:
        keypoints = clip.keypoints.copy()
        keypoints[:, :, rng.permutation(25)[:12]] = 0
        half.append(replace(clip, keypoints=keypoints))
    features = embed_clips(model, extractor.clips(half))
    cosine = torch.nn.functional.cosine_similarity
    # Far above that of other clips, of the same movement, too.
    assert cosine(features, native).mean() >= 0.6 > 0.45 > cosine(native, native.roll(1, 0)).mean()
    assert (top_k(features, native, 1)[1][:, 0] == torch.arange(len(native))).float().mean() >= 0.85


def test_the_results_give_the_tables_figures():
    """At five clips per class: of the encoders, random weights, and the joints, on the development and final sets."""
    text = (ROOT / "benchmarks" / "README.md").read_text()
    words = " ".join((ROOT / "docs" / "results.md").read_text().split())
    for group, measure, features, around in [
        (
            "development",
            "linear probe",
            "`usdrl/mocap-tiny`",
            "a linear probe on `usdrl/mocap-tiny` reaches {} % on average",
        ),
        ("development", "linear probe", "joints, normalised", "{} % on the normalised joints and"),
        ("development", "linear probe", "mocap-tiny, random weights", "{} % on the encoder with random weights"),
        ("final", "linear probe", "`usdrl/mocap-tiny`", "after all choices, a linear probe on it reaches {} %"),
        ("final", "linear probe", "joints, normalised", "({} % on the normalised joints,"),
        ("final", "linear probe", "mocap-tiny, random weights", "{} % on random weights)"),
        ("final", "1-NN", "`usdrl/mocap-tiny`", "its nearest neighbours {} % (joints"),
        ("final", "1-NN", "joints, normalised", "(joints {} %)"),
        ("final", "linear probe", "`usdrl/mocap-base`", "four times as slow, reaches {} and"),
        ("final", "1-NN", "`usdrl/mocap-base`", "and {} %."),
        ("final", "linear probe", "mocap-tiny, mean of 3 seeds", "not published, the means are {} and"),
        ("final", "1-NN", "mocap-tiny, mean of 3 seeds", "and {} % over three seeds of tiny"),
        ("final", "linear probe", "mocap-base, mean of 2 seeds", "seeds of tiny, and {} and"),
        ("final", "1-NN", "mocap-base, mean of 2 seeds", "and {} % over two of base."),
    ]:
        table = text[text.index(f"| {group}: measure") :].partition("\n\n")[0].splitlines()
        [row] = [row for row in table if row.startswith(f"| {measure} | {features} |")]
        assert around.format(row.split("|")[5].strip()) in words


@pytest.mark.parametrize(
    ("measure", "ours", "theirs", "shots", "least"),
    [
        ("1nn", "mocap-tiny", "normalised", "5", 3),
        ("1nn", "mocap-tiny", "normalised", "all", 0),
        ("linear", "mocap-tiny", "mocap-tiny random", "5", 8),
        ("linear", "mocap-tiny", "normalised", "5", 11),
        ("finetuned", "mocap-tiny", "mocap-tiny scratch", "5", 5),
        ("linear", "mocap-base", "mocap-tiny", "5", 2),
    ],
)
def test_what_was_promised_holds_on_the_final_sets(mocap, measure, ours, theirs, shots, least):
    module, content = mocap
    means = [module.mean_accuracy(content, module.GROUPS["final"], measure, who, shots) for who in (ours, theirs)]
    assert means[0] - means[1] >= least
