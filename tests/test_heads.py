import pytest
import torch
import transformers

from usdrl_hub import (
    USDRLFeatureExtractor,
    USDRLForActionRecognition,
    USDRLModel,
    USDRLTrainer,
    evaluate,
    extract_embeddings,
    fuse,
    iter_predictions,
    iter_timelines,
    with_head,
)
from usdrl_hub.facts.checkpoints import CHECKPOINTS
from usdrl_hub.hub.cards import CardSource, render_card
from usdrl_hub.loading import load_model, model_class
from usdrl_hub.modeling_usdrl import BACKGROUND, HEADS, USDRLClassificationModel
from usdrl_hub.remote_code import add_remote_code

from .helpers import clips, tiny_config, walking


def test_each_head_says_what_it_is(tmp_path):
    """Listings, cards, Auto classes and remote code agree with the attributes of the head."""
    assert {entry.task for entry in CHECKPOINTS.values()} <= {head.task for head in HEADS.values()}
    assert len({head.task for head in HEADS.values()}) == len(HEADS)
    for name, head in HEADS.items():
        config = tiny_config(architectures=[name])
        assert head.granularity in ("clip", "frame", "video") and model_class(config) is head
        source = CardSource("ada/x", config, None, {}, 0, None, True)
        assert source.task == head.task and source.head is head
        known = getattr(transformers, head.auto_class)._model_mapping[type(config)]
        assert head in (known if isinstance(known, tuple) else (known,))
        config.save_pretrained(tmp_path)
        add_remote_code(tmp_path)
        sent = transformers.AutoConfig.from_pretrained(tmp_path).auto_map
        assert sent[head.auto_class] == f"modeling_usdrl.{name}"


WITH_CLASSES = [head for head in HEADS.values() if issubclass(head, USDRLClassificationModel)]


@pytest.mark.parametrize("head", WITH_CLASSES)
def test_an_encoder_gets_any_head(head):
    causal = head.task == "early prediction"
    source = USDRLForActionRecognition(tiny_config(problem_type="regression", num_labels=1))
    model = with_head(source, head, ["wave", "bow"], is_causal=causal)
    assert model.config.class_names == [BACKGROUND] * head.has_background + ["wave", "bow"]
    assert model.config.architectures == [head.__name__] and model.config.problem_type is None
    copied, original = model.usdrl.state_dict(), source.usdrl.state_dict()
    assert all(torch.equal(values, original[name]) for name, values in copied.items())
    assert all(values.data_ptr() != original[name].data_ptr() for name, values in copied.items())
    assert source.config.num_labels == 1 and source.config.problem_type == "regression"


def test_what_an_encoder_lacks_is_refused():
    encoder = USDRLModel(tiny_config(is_causal=True))
    with pytest.raises(ValueError, match="no weight 'spatial.*neither fused nor"):
        with_head(encoder, USDRLForActionRecognition, 3, is_causal=False)
    with pytest.raises(ValueError, match="no weight.*neither fused nor"):
        with_head(fuse(USDRLModel(tiny_config()).eval()), USDRLForActionRecognition, 3)


@pytest.mark.parametrize("head", WITH_CLASSES)
def test_a_head_is_replaced_in_place(head, tmp_path):
    model = head(tiny_config(is_causal=head.task == "early prediction", drop_path_rate=0)).eval()
    keypoints = clips(model.config)
    if head.granularity == "video":
        keypoints = {"keypoints": keypoints[:, None], "window_starts": torch.zeros(len(keypoints), 1).long()}
    else:
        keypoints = {"keypoints": keypoints}
    before = {name: values.clone() for name, values in model.usdrl.state_dict().items()}
    torch.manual_seed(0)
    model.reset_classifier(["wave", "bow", "point"])
    count = 3 + head.has_background
    assert model.config.num_labels == count and model.config.label2id["point"] == count - 1
    assert not model.training and model(**keypoints).logits.shape[-1] == count
    assert all(torch.equal(values, before[name]) for name, values in model.usdrl.state_dict().items())
    model.save_pretrained(tmp_path)
    again = head.from_pretrained(tmp_path)
    assert torch.equal(again(**keypoints).logits, model(**keypoints).logits)
    model.reset_classifier(7)
    assert model(**keypoints).logits.shape[-1] == 7 and model.config.class_names[6] == "LABEL_6"
    with pytest.raises(ValueError, match="at least one class"):
        model.reset_classifier(0)


def test_a_new_head_is_drawn_like_the_first():
    """As the release draws heads: weights of a small deviation, no bias."""
    model = USDRLForActionRecognition(tiny_config(hidden_size=64)).to(torch.float64)
    model.reset_classifier(50)
    weight, bias = model.classifier.weight, model.classifier.bias
    assert weight.dtype == torch.float64 and not bias.any()
    assert weight.std().item() == pytest.approx(model.config.classifier_initializer_range, rel=0.1)


class USDRLForPairs(USDRLForActionRecognition):
    """A head that nothing in the package knows but `HEADS`."""

    task = "pairs"
    pipeline_tag = "other"


def test_a_new_head_is_entered_once(monkeypatch, tmp_path):
    """What lists, loads, describes and trains heads asks them; no table has to be extended."""
    monkeypatch.setitem(HEADS, "USDRLForPairs", USDRLForPairs)
    model = with_head(USDRLModel.from_pretrained("usdrl/mocap-tiny"), USDRLForPairs, ["handshake", "hug"])
    model.save_pretrained(tmp_path)
    USDRLFeatureExtractor.from_pretrained("usdrl/mocap-tiny").save_pretrained(tmp_path)
    assert type(load_model(tmp_path)) is USDRLForPairs
    card = render_card(CardSource.of_folder(tmp_path, "ada/pairs"))
    assert "pipeline_tag: other" in card and "USDRLForPairs.from_pretrained" in card and "skeleton-pairs" in card
    assert "AutoModelForVideoClassification.from_pretrained" in card
    USDRLTrainer(model, transformers.TrainingArguments(output_dir=str(tmp_path), report_to="none"), linear_probe=True)
    assert not any(values.requires_grad for values in model.usdrl.parameters())
    for predict in (iter_predictions, iter_timelines):
        with pytest.raises(ValueError, match="USDRLForPairs"):
            list(predict([walking(persons=2)], tmp_path))
    assert extract_embeddings([walking(persons=2)], tmp_path).shape == (1, model.config.clip_embedding_size)
    with pytest.raises(ValueError, match="USDRLForPairs, and USDRLForActionDetection is needed"):
        evaluate(tmp_path, "detection/pkummd1-xsub", data="tiny", train_head=False)
