import json
import subprocess
import sys


def test_facts_need_neither_torch_nor_transformers():
    code = (
        "import sys, json; from usdrl_hub.facts import benchmarks, checkpoints, datasets, recipes; "
        "text = json.dumps([entry.describe() for entry in checkpoints.list_models(pretrained=False)]); "
        "hints = [checkpoints.explain_missing(name) for name in checkpoints.CHECKPOINTS]; "
        "print(json.dumps([len(json.loads(text)), [name for name in sys.modules if name in "
        "('torch', 'transformers', 'numpy', 'huggingface_hub')]]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    count, heavy = json.loads(done.stdout)
    assert count > 100 and heavy == []
