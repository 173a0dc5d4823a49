import pytest
from huggingface_hub.errors import StrictDataclassFieldValidationError

from usdrl_hub import USDRLConfig, USDRLForActionRecognition

NAN, INFINITE = float("nan"), float("inf")


def test_defaults_are_the_published_sizes():
    config = USDRLConfig()
    assert (config.num_frames, config.num_persons, config.num_joints, config.num_channels) == (64, 2, 25, 3)
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (1024, 2, 1)
    assert (config.alpha, config.shift_gap, config.drop_path_rate, config.modality) == (0.5, 4, 0.1, "joint")
    assert config.layout == "ntu25" and config.intermediate_size == 2048
    assert config.stream_projector_sizes == [2048] * 3 and config.instance_projector_sizes == [2048, 2048, 4096]
    assert USDRLConfig(encoder="sttr").intermediate_size == 1024


@pytest.mark.parametrize("layout", [None, "coco17", {"joint_names": list("abcdefghijklmnopq"), "bones": [[1, 0]]}])
def test_it_survives_saving(tmp_path, layout):
    config = USDRLConfig(num_joints=17, layout=layout, hidden_size=32, id2label={0: "sit", 1: "stand"})
    config.save_pretrained(tmp_path)
    assert USDRLConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()
    assert config.label2id == {"sit": 0, "stand": 1} and config.class_names == ["sit", "stand"]


def test_numbers_of_classes_may_be_text_and_label2id_follows(tmp_path):
    """faults.md 13: such a model was trained, and could not be saved."""
    names = {"0": "sit", "1": "stand", "2": "lie"}
    numbered = {0: "sit", 1: "stand", 2: "lie"}
    given = USDRLForActionRecognition.from_pretrained(
        "usdrl/tiny-uiprmd", id2label=names, ignore_mismatched_sizes=True
    )
    assigned = USDRLConfig(num_labels=2)
    assigned.id2label = names
    for config in (given.config, assigned, USDRLConfig(id2label=names)):
        assert config.id2label == numbered and config.label2id == {"sit": 0, "stand": 1, "lie": 2}
        assert config.num_labels == 3
    given.save_pretrained(tmp_path)
    assert USDRLForActionRecognition.from_pretrained(tmp_path).config.id2label == numbered


@pytest.mark.parametrize("fields", [{"num_frames": 0}, {"layer_norm_eps": NAN}, {"modality": "smell"}])
def test_fields_given_to_from_pretrained_are_checked_like_those_of_the_file(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        USDRLConfig.from_pretrained("usdrl/tiny-uiprmd", **fields)


def test_layout_follows_from_the_joints():
    assert USDRLConfig(num_joints=17).layout == "coco17-release"
    assert USDRLConfig(num_joints=11).layout is None
    custom = USDRLConfig(num_joints=3, layout=[(1, 0), (2, 1)]).layout
    assert custom["bones"] == [[1, 0], [2, 1]]


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"num_joints": 17, "layout": "ntu25"}, "has 25 joints, but num_joints is 17"),
        ({"num_joints": 9, "modality": "bone"}, "needs a layout"),
        ({"hidden_size": 30, "num_attention_heads": 4}, "not a multiple"),
        ({"hidden_size": 31}, "must be even"),
        ({"alpha": 1.5}, "alpha must be between 0 and 1"),
        ({"drop_path_rate": 1}, "drop_path_rate"),
        ({"shift_gap": 0}, "shift_gap must be at least 1"),
        ({"num_frames": 0}, "num_frames must be at least 1"),
        ({"id2label": {1: "a", 2: "b"}}, "0 to n - 1"),
        ({"num_labels": 0}, "0 to n - 1"),
        ({"num_frames": -3}, "num_frames must be at least 1"),
        ({"layout": "kinect"}, "unknown layout 'kinect'"),
        ({"stream_projector_sizes": [1, 2]}, "three positive widths"),
        # faults.md 25: NaN passes every comparison that is not asked the other way round.
        *(({"layer_norm_eps": value}, "layer_norm_eps must be above 0") for value in (NAN, -1.0, 0.0, INFINITE)),
        *(({name: NAN}, name) for name in ("alpha", "drop_path_rate", "initializer_range")),
        ({"initializer_range": INFINITE}, "initializer_range must be a finite number"),
        ({"classifier_initializer_range": -1}, "classifier_initializer_range must be a finite number"),
        # faults.md 27: fields that transformers does not check.
        ({"architectures": 5}, "architectures must be a list of names"),
        ({"architectures": [5]}, "architectures must be a list of names"),
        ({"id2label": ["a"]}, "id2label must be a dictionary"),
        ({"id2label": {"a": "b"}}, "0 to n - 1"),
        ({"num_labels": "x"}, "num_labels must be at most"),
        ({"num_labels": 200_000}, "num_labels must be at most 100000"),
        ({"dtype": "x"}, "dtype must be a type of torch"),
        ({"dtype": [1]}, "dtype must be the name of a type"),
        ({"quantization_config": 5}, "quantization_config must be a dictionary"),
    ],
)
def test_impossible_combinations_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        USDRLConfig(**fields)


@pytest.mark.parametrize("fields", [{"encoder": "gcn"}, {"modality": 3}, {"num_frames": 6.5}])
def test_wrong_types_are_refused(fields):
    with pytest.raises(StrictDataclassFieldValidationError, match=next(iter(fields))):
        USDRLConfig(**fields)
