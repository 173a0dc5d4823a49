import transformers

from usdrl_hub.facts.checkpoints import CHECKPOINTS
from usdrl_hub.hub.cards import CardSource
from usdrl_hub.loading import model_class
from usdrl_hub.modeling_usdrl import HEADS
from usdrl_hub.remote_code import add_remote_code

from .helpers import tiny_config


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
