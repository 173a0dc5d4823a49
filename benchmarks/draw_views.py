"""Draw the four pretraining views of a clip.

    python benchmarks/draw_views.py [--clip 0] [--seed 0] [--output-dir views]

Writes `clip.png`, a normalised sample clip, and `view0.png` to `view3.png`.
"""

import argparse
from pathlib import Path

import torch

from usdrl_hub import USDRLFeatureExtractor
from usdrl_hub.data.samples import load_samples
from usdrl_hub.pretraining.build import build_recipe, load_recipe
from usdrl_hub.visualize.pictures import draw_clip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output-dir", type=Path, default=Path("views"))
    arguments = parser.parse_args()
    clip = load_samples()[arguments.clip]
    extractor = USDRLFeatureExtractor("ntu25", "body", num_persons=1, max_frames=None)
    augmentation = build_recipe(load_recipe("mocap-tiny"))[3]
    batch = extractor.normalized([clip])
    number = torch.tensor([arguments.clip])
    drawn = augmentation.draw(batch.lengths, batch.frames.shape[2], number, arguments.seed, 0)
    views = augmentation(batch, number, arguments.seed)
    draw_clip(batch.frames.numpy(), "ntu25", clip.name, arguments.output_dir / "clip.png")
    for view in range(augmentation.num_views):
        start, length = int(drawn["start"][view, 0]), int(drawn["length"][view, 0])
        title = f"{clip.name}: frames {start} to {start + length} of {len(batch.frames)}"
        draw_clip(views[view, 0].numpy(), "ntu25", title, arguments.output_dir / f"view{view}.png")


if __name__ == "__main__":
    main()
