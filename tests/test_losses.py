import numpy as np
import pytest
import torch

from usdrl_hub import USDRLForPreTraining
from usdrl_hub.hub.convert import convert_checkpoint, key_map
from usdrl_hub.pretraining.losses import (
    MultiGrainedFeatureDecorrelation,
    autocovariance,
    cross_correlation,
    similarity,
    variance,
)

from .conftest import GOLDENS, relative_error, to_clips

DOMAINS = ("temporal", "spatial", "instance")


@pytest.fixture
def projections(golden):
    file = golden("trainstep_dste_ntu25")
    return [torch.stack([torch.from_numpy(file[f"z_{domain}{view}"]) for view in range(4)]) for domain in DOMAINS]


def test_terms_are_those_of_the_release(golden, projections):
    file = golden("trainstep_dste_ntu25")
    for place, views in enumerate(projections):
        assert relative_error(similarity(views), file["sim_tsi"][place]) < 1e-5
        assert relative_error(5 * variance(views) + autocovariance(views), file["vac_tsi"][place]) < 1e-5
        assert relative_error(cross_correlation(views), file["xcorr_tsi"][place]) < 1e-5


@pytest.mark.parametrize("release", ["tpami", "aaai"])
def test_totals_are_those_of_the_release(golden, projections, release):
    parts = MultiGrainedFeatureDecorrelation.preset(release)(*projections)
    assert relative_error(parts["loss"], golden("trainstep_dste_ntu25")[f"loss_{release}"]) < 1e-5
    assert ("cross_correlation" in parts) == (release == "aaai")


def test_a_training_step_has_the_gradients_of_the_release(golden):
    file = golden("trainstep_dste_ntu25")
    model = convert_checkpoint(GOLDENS / "trainstep_dste_ntu25.pth.tar").train()
    for module in model.modules():
        if hasattr(module, "rate"):
            module.rate = 0.0
    views = torch.stack([to_clips(file[f"view{view}_NCTVM"]) for view in range(4)])
    output = model(views)
    for domain in DOMAINS:
        expected = np.stack([file[f"z_{domain}{view}"] for view in range(4)])
        assert relative_error(output[f"{domain}_projection"].detach(), expected) < 1e-5
    loss = MultiGrainedFeatureDecorrelation.preset("aaai")
    total = loss(*(output[f"{domain}_projection"] for domain in DOMAINS))["loss"]
    assert relative_error(total.detach(), file["loss_aaai"]) < 1e-5
    total.backward()
    ours = {theirs: ours for theirs, ours in key_map(model.config, False, True).items()}
    gradients = {name: parameter.grad.norm().item() for name, parameter in model.named_parameters()}
    names, norms = file["grad_names"].tolist(), file["grad_norms"]
    assert len(names) == 147 and {ours[name] for name in names} == set(gradients)
    for name, norm in zip(names, norms, strict=True):
        assert abs(gradients[ours[name]] - norm) <= 1e-4 * norm + 1e-6 * norms.max(), name


@pytest.mark.parametrize("batch, features", [(5, 9), (9, 5), (6, 6), (2, 40)])
def test_both_forms_agree_in_value_and_gradient(batch, features):
    for term in (autocovariance, cross_correlation):
        results = []
        for gram in (False, True, None):
            views = torch.randn(3, batch, features, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
            views.requires_grad_()
            value = term(views, gram=gram)
            (gradient,) = torch.autograd.grad(value, views)
            results.append((value.detach(), gradient))
        for value, gradient in results[1:]:
            torch.testing.assert_close(value, results[0][0], rtol=1e-10, atol=1e-12)
            torch.testing.assert_close(gradient, results[0][1], rtol=1e-8, atol=1e-10)


def test_the_terms_are_what_their_names_say():
    views = torch.randn(4, 7, 5, dtype=torch.float64)
    covariances = [np.cov(view.T.numpy()) for view in views]
    off = [covariance - np.diag(np.diag(covariance)) for covariance in covariances]
    np.testing.assert_allclose(autocovariance(views), sum((matrix**2).sum() for matrix in off) / 5, rtol=1e-12)
    deviations = [np.sqrt(np.diag(covariance) + 1e-4) for covariance in covariances]
    np.testing.assert_allclose(variance(views), sum(np.maximum(1 - d, 0).mean() for d in deviations), rtol=1e-12)
    total = 0.0
    for a in range(4):
        for b in range(a + 1, 4):
            # numpy's correlation divides by n - 1, the release by n after unbiased deviations.
            matrix = np.corrcoef(views[a].T, views[b].T)[:5, 5:] * 6 / 7
            total += ((np.diag(matrix) - 1) ** 2).sum() + 0.005 * ((matrix - np.diag(np.diag(matrix))) ** 2).sum()
    np.testing.assert_allclose(cross_correlation(views), total, rtol=1e-12)


@pytest.mark.parametrize("term", [similarity, variance, autocovariance, cross_correlation])
def test_gradients_are_those_of_finite_differences(term):
    views = 0.5 * torch.randn(4, 3, 6, dtype=torch.float64)
    assert torch.autograd.gradcheck(term, views.requires_grad_())


def test_half_precision_projections_are_scored_in_single_precision():
    views = [torch.randn(4, 8, 16) for _ in range(3)]
    loss = MultiGrainedFeatureDecorrelation.preset("aaai")
    halves = [view.bfloat16() for view in views]
    exact = loss(*(view.float() for view in halves))["loss"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert loss(*halves)["loss"] == exact and exact.dtype == torch.float32


def test_impossible_batches_and_presets_are_refused():
    with pytest.raises(ValueError, match="too few"):
        MultiGrainedFeatureDecorrelation()(*[torch.randn(4, 1, 6)] * 3)
    with pytest.raises(ValueError, match="use aaai or tpami"):
        MultiGrainedFeatureDecorrelation.preset("cvpr")


def test_views_are_projected_one_by_one(golden):
    model = convert_checkpoint(GOLDENS / "trainstep_dste_ntu25.pth.tar").eval()
    assert isinstance(model, USDRLForPreTraining)
    views = torch.randn(2, 3, 64, 2, 25, 3)
    together = model(views)
    for view, clips in enumerate(views):
        alone = model(clips)
        for name in ("pooler_output", *(f"{domain}_projection" for domain in DOMAINS)):
            torch.testing.assert_close(together[name][view], alone[name], rtol=1e-4, atol=1e-5)
