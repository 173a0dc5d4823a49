import os
import re
import sys

import numpy as np
import pytest
from PIL import Image
from sklearn.decomposition import PCA

from usdrl_hub import SkeletonSequence, USDRLForActionRecognition, draw_map, extract_embeddings, open_data, write_store
from usdrl_hub.data.samples import load_samples, sample_path
from usdrl_hub.layouts import get_layout
from usdrl_hub.visualize.map import PROJECTORS, Map, make_map, project_pca, stack_thumbnails, thumbnail
from usdrl_hub.visualize.panel import CLASS_COLORS
from usdrl_hub.visualize.scene import Scene

from .helpers import HOSTILE_TEXT, content, run, tiny_model, walking

TINY = "usdrl/tiny-uiprmd"


@pytest.fixture(scope="module")
def few():
    """Forty of the samples: four of each class."""
    data = load_samples()
    return data.select(np.arange(len(data)) % 5 < 2)


@pytest.fixture(scope="module")
def made(few):
    return make_map(few, TINY)


def map_of(count, classes=3, frames=30, persons=1, **fields) -> Map:
    """A map of a walking body; places and classes are drawn."""
    random = np.random.default_rng(0)
    thumb = thumbnail(walking(frames, persons))
    whole = {
        "positions": random.standard_normal((count, 2)),
        "names": [f"recording {number}" for number in range(count)],
        "labels": random.integers(0, classes, count),
        "class_names": [f"class {number}" for number in range(classes)],
        "thumbs": stack_thumbnails([thumb] * count),
        "layout": get_layout("ntu25"),
        "sides": Scene.of(walking()).sides,
        "about": "drawn",
    }
    return Map(**whole | fields)


def test_the_plane_is_that_of_the_principal_components(few, made):
    unit = extract_embeddings(few, TINY).astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    pca = PCA(2).fit(unit)
    expected = pca.transform(unit)
    # An axis has no sign of its own.
    signs = np.sign((expected * made.positions).sum(0))
    np.testing.assert_allclose(made.positions * signs, expected, atol=1e-5)
    assert f"{100 * pca.explained_variance_ratio_.sum():.0f} % of the variance" in made.about
    again, _ = project_pca(extract_embeddings(few, TINY)[::-1].copy())
    np.testing.assert_allclose(again[::-1], made.positions, atol=1e-5)


def test_clips_of_a_class_lie_nearer_each_other_than_others(few, made):
    away = np.linalg.norm(made.positions[:, None] - made.positions[None], axis=-1)
    same = made.labels[:, None] == made.labels[None]
    assert away[same].mean() < 0.5 * away[~same].mean()
    assert list(made.names) == [sequence.name for sequence in few] and len(made.class_names) == 10


def test_neighbours_stay_neighbours_with_tsne(few):
    first, second = (make_map(few, TINY, projection="tsne", seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.positions, second.positions)
    away = np.linalg.norm(first.positions[:, None] - first.positions[None], axis=-1)
    np.fill_diagonal(away, np.inf)
    assert (first.labels[away.argmin(1)] == first.labels).mean() > 0.8


def test_a_projection_that_is_not_installed_is_named(few, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    with pytest.raises(ValueError, match=r"needs scikit-learn: pip install 'usdrl-hub\[map\]', or use pca"):
        PROJECTORS["tsne"](np.random.rand(5, 4), 0)


def test_a_thumbnail_is_the_body_as_it_is_seen():
    sequence = walking(frames=90, persons=2)
    keypoints = sequence.keypoints.copy()
    keypoints[:, 1, 3] = 0
    keypoints[40:, 1] = 0
    keypoints[:7] = 0
    thumb = thumbnail(SkeletonSequence(keypoints, "ntu25"))
    assert thumb.shape == (10, 2, 25, 2) and thumb.dtype == np.uint8
    unseen = (thumb == 255).all(-1)
    assert not unseen[:, 0].any() and unseen[:4, 1, 3].all() and not unseen[:3, 1, :3].any() and unseen[-3:, 1].all()
    joints = thumb[~unseen]
    assert (joints != 255).all() and np.ptp(joints, axis=0).max() >= 253
    head, foot = (get_layout("ntu25").joint_names.index(name) for name in ("head", "left_foot"))
    assert (thumb[:, 0, head, 1] > thumb[:, 0, foot, 1]).all()


def test_a_page_of_two_thousand_clips_of_pairs_is_small(tmp_path):
    draw_map(map_of(2000, persons=2), tmp_path / "map.html", TINY)
    assert (tmp_path / "map.html").stat().st_size < 3_000_000
    page = content(tmp_path / "map.html")
    assert page["thumbs"]["frames"] == 7 and len(page["names"]) == 2000
    assert draw_map(map_of(20_000), tmp_path / "map.html").thumbs.shape[1] == 1


def test_a_page_is_one_file_that_asks_for_nothing_and_tells_what_is_on_it(tmp_path, few, made):
    assert len(draw_map(few, tmp_path / "map.html", TINY, title="movements").names) == 40
    text = (tmp_path / "map.html").read_text("utf-8")
    assert set(re.findall(r"\w+://[^\s\"'<]*", text)) == {"http://www.w3.org/2000/svg"}
    assert "default-src 'none'" in text and "{{" not in text
    page = content(tmp_path / "map.html")
    assert (page["name"], page["facts"]) == ("movements", ["40 recordings", "10 classes"])
    assert [kind["label"] for kind in page["classes"]] == list(made.class_names)
    assert [kind["count"] for kind in page["classes"]] == [4] * 10 and page["about"].endswith("by usdrl/tiny-uiprmd")
    assert len({(kind["color"], kind["shape"]) for kind in page["classes"]}) == 10


def test_names_are_text_whatever_they_hold(tmp_path, open_page):  # noqa: F811
    hostile = map_of(3, names=[HOSTILE_TEXT] * 3, labels=np.array([0, 0, -1]), class_names=[HOSTILE_TEXT])
    draw_map(hostile, tmp_path / "map.html", title=HOSTILE_TEXT)
    text = (tmp_path / "map.html").read_text("utf-8")
    assert text.count("<script") == text.count("</script>") == 2 and "<img" not in text
    draw_map(hostile, tmp_path / "map.png", title=HOSTILE_TEXT)
    browser = open_page(tmp_path / "map.html")
    assert browser.text("#name") == HOSTILE_TEXT and browser.text("aside button:first-child span") == HOSTILE_TEXT
    assert browser.run("return window.hacked === undefined && !document.querySelector('img')")
    assert browser.text("aside button:last-child span") == "no label" and browser.complaints() == []


def test_a_picture_shows_every_class(tmp_path):
    for classes in (1, 8, 70):
        draw_map(map_of(300, classes), tmp_path / "map.png")
        picture = Image.open(tmp_path / "map.png").convert("RGB")
        found = {color for _, color in picture.getcolors(1 << 24)}
        assert picture.width > 1000 and len(found) > 20
    draw_map(map_of(2, positions=np.zeros((2, 2))), tmp_path / "map.png")


def test_at_most_so_many_recordings_are_drawn_by_chance_and_always_the_same(few, tmp_path):
    some = make_map(few, TINY, max_recordings=12, seed=1)
    assert len(some.names) == 12 and "a random sample of 12 of 40 recordings" in some.about
    assert list(some.names) == list(make_map(few, TINY, max_recordings=12, seed=1).names)
    assert list(some.names) != list(make_map(few, TINY, max_recordings=12, seed=2).names)
    for number in range(6):
        np.save(tmp_path / f"r{number}.npy", np.random.default_rng(number).standard_normal((20, 25, 3)))
    folder = make_map(tmp_path, TINY, max_recordings=4)
    assert len(folder.names) == 4 and (folder.labels == -1).all()


def test_map_says_what_it_drew(capsys, tmp_path, few):
    write_store(few, tmp_path / "clips", few.class_names)
    model, extractor = tiny_model(USDRLForActionRecognition, layout="ntu25", num_joints=25)
    model.save_pretrained(tmp_path / "own-model")
    extractor.save_pretrained(tmp_path / "own-model")
    capsys.readouterr()
    options = ["--model", tmp_path / "own-model", "--output", tmp_path / "map.html", "--projection", "tsne"]
    code, out, err = run(capsys, "map", tmp_path / "clips", *options)
    assert code == 0 and err == "" and out.startswith(f"{tmp_path / 'map.html'}: 40 recordings of 10 classes. ")
    page = content(tmp_path / "map.html")
    assert page["name"] == "clips" and page["about"].endswith("by own-model")
    assert str(tmp_path) not in (tmp_path / "map.html").read_text()
    np.save(tmp_path / "bad.npy", np.full((4, 25, 3), np.nan))
    for number in range(2):
        np.save(tmp_path / f"r{number}.npy", np.random.default_rng(number).standard_normal((20, 25, 3)))
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("bad", "r0", "r1"):
        (tmp_path / f"{name}.npy").rename(folder / f"{name}.npy")
    code, out, err = run(capsys, "map", folder, "--output", tmp_path / "map.png")
    assert code == 2 and "bad.npy" in err and "2 recordings of 0 classes" in out
    assert (tmp_path / "map.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["{data}", "--output", "{folder}/map.gif"], "a map is drawn as .html, .png"),
        (["{data}", "--output", "{folder}/map.html", "--projection", "umap"], "use one of pca, tsne"),
        (
            ["{data}", "--output", "{folder}/map.html", "--max-recordings", "1"],
            "a map needs at least two recordings, not 1",
        ),
        (["{one}", "--output", "{folder}/map.html"], "a map needs at least two recordings that fit the model, not 1"),
        (["{folder}/absent", "--output", "{folder}/map.html"], "absent"),
        (["{folder}", "--output", "{folder}/map.html"], "there is no .skeleton, .npy, .npz"),
        (["{data}", "--output", "{data}/map.html"], "cannot be written"),
        (["{data}", "--output", "{folder}/map.html", "--model", "usdrl/nothing"], "was not found"),
    ],
)
def test_what_cannot_be_mapped_is_refused_with_one_sentence(capsys, tmp_path, arguments, message):
    folder, one = tmp_path / "folder", tmp_path / "one"
    folder.mkdir()
    write_store(load_samples()[:1], one)
    places = {"folder": folder, "data": sample_path(), "one": one}
    code, out, err = run(capsys, "map", *(part.format(**places) for part in arguments))
    assert code == 2 and message in err and err.startswith("usdrl: ") and err.count("\n") == 1 and not out
    assert list(folder.iterdir()) == []


# -- in a browser


def points(browser) -> list:
    """Where every point is in the window."""
    script = """
        const data = JSON.parse(document.querySelector('#data').textContent);
        const raw = Uint8Array.from(atob(data.positions), sign => sign.charCodeAt(0));
        return [[...new Uint16Array(raw.buffer)], data.extent]"""
    flat, (wide, high) = browser.run(script)
    x, y, width, height = browser.box("#view")
    scale = min((width - 68) / wide, (height - 82) / high) / 65535
    return [
        (x + width / 2 + (a - 65535 * wide / 2) * scale, y + height / 2 - 7 - (b - 65535 * high / 2) * scale)
        for a, b in zip(flat[::2], flat[1::2], strict=True)
    ]


def thumbnail_pixels(browser) -> list:
    """How many pixels of the thumbnail are drawn, and where their middle is."""
    return browser.run("""
        const small = document.querySelector('#tip canvas'), [w, h] = [small.width, small.height];
        const copy = new OffscreenCanvas(w, h).getContext('2d', {willReadFrequently: true});
        copy.drawImage(small, 0, 0);
        const pixels = copy.getImageData(0, 0, w, h).data;
        let count = 0, low = h, high = 0;
        for (let at = 0; at < w * h; at++) if (pixels[4 * at + 3] > 60) {
            count++; low = Math.min(low, Math.floor(at / w)); high = Math.max(high, Math.floor(at / w));
        }
        return [count, low, high, w, h]""")


def test_hovering_a_point_shows_its_name_its_class_and_its_skeleton_that_moves(tmp_path, open_page):  # noqa: F811
    spread = np.array([[0, 0], [4, 0], [0, 3], [4, 3], [2, 1.5]], dtype=float)
    classes = ["sit", "walk"]
    fall = SkeletonSequence(walking(90).keypoints * np.linspace(1, 0.2, 90)[:, None, None, None], "ntu25")
    thumbs = stack_thumbnails([thumbnail(walking())] * 4 + [thumbnail(fall)])
    labels = np.array([0, 0, 1, 1, 1])
    drawn = map_of(5, positions=spread, labels=labels, class_names=classes, thumbs=thumbs)
    draw_map(drawn, tmp_path / "map.html", title="five")
    browser = open_page(tmp_path / "map.html")
    assert browser.text("#name") == "five" and browser.text("#facts").startswith("5 recordings")
    for number, place in enumerate(points(browser)):
        browser.pointer(("move", place[0] + 2, place[1] - 1))
        assert browser.text("#tip b") == f"recording {number}"
        assert browser.text("#tip span") == classes[labels[number]]
        assert not browser.run("return document.querySelector('#tip').hidden")
        count, low, high, width, height = thumbnail_pixels(browser)
        assert count > 500 and width == height >= 140
        left, top, wide, tall = browser.box("#tip")
        assert left >= 0 and top >= 0 and left + wide <= 1280 and top + tall <= 800
    # The last one shrinks as it falls.
    heights = set()
    for _ in range(40):
        browser.settle()
        count, low, high, *_ = thumbnail_pixels(browser)
        heights.add(round((high - low) / 10))
    assert max(heights) > 1.5 * min(heights)
    browser.pointer(("move", points(browser)[4][0] + 60, points(browser)[4][1] + 60))
    assert browser.run("return document.querySelector('#tip').hidden") and browser.complaints() == []


def shown(browser, path) -> dict:
    browser.screenshot(path)
    x, y, width, height = browser.box("#view")
    picture = Image.open(path).convert("RGB").crop((x, y, x + width, y + height))
    return {color: count for count, color in picture.getcolors(1 << 24)}


def test_classes_can_be_hidden_and_the_map_zoomed_and_moved_in_light_and_dark(tmp_path, open_page):  # noqa: F811
    spread = np.array([[0, 0], [4, 0], [0, 3], [4, 3]], dtype=float)
    drawn = map_of(4, positions=spread, labels=np.array([0, 0, 0, 1]), class_names=["a", "b"])
    draw_map(drawn, tmp_path / "map.html")
    browser = open_page(tmp_path / "map.html", 700, 900)
    assert browser.run("return document.documentElement.scrollWidth") <= 700
    browser = open_page(tmp_path / "map.html")
    before = shown(browser, tmp_path / "a.png")
    browser.click("aside button:first-child")
    browser.pointer(("move", 5, 5))
    after = shown(browser, tmp_path / "b.png")
    assert browser.run("return document.querySelector('aside button').getAttribute('aria-pressed')") == "false"
    near = [sum(count for color, count in seen.items() if reddish(color) == 0) for seen in (before, after)]
    assert near[0] > 150 and near[1] == 0
    browser.pointer(("move", *points(browser)[0]))
    assert browser.run("return document.querySelector('#tip').hidden")
    browser.click("aside button:first-child")
    middle = points(browser)[0]
    browser.pointer(("move", 500, 400), ("down",), ("move", 580, 420), ("up",))
    browser.pointer(("move", middle[0] + 80, middle[1] + 20))
    assert browser.text("#tip b") == "recording 0"
    browser.press("+", "r")
    browser.pointer(("move", *middle))
    assert browser.text("#tip b") == "recording 0"
    dark = open_page(tmp_path / "map.html", dark=True)
    [paper] = sorted(shown(dark, tmp_path / "c.png").items(), key=lambda item: -item[1])[:1]
    assert sum(paper[0]) < 150
    dark.press("t")
    [paper] = sorted(shown(dark, tmp_path / "d.png").items(), key=lambda item: -item[1])[:1]
    assert sum(paper[0]) > 600 and dark.complaints() == []


def reddish(color) -> int | None:
    """Which class a pixel is of, whatever lies behind it."""
    palette = [np.array(list(bytes.fromhex(text[1:]))) for text in CLASS_COLORS[:2]]
    away = [np.abs(np.array(color) * 1.0 - (0.82 * one + 0.18 * 253)).max() for one in palette]
    return int(np.argmin(away)) if min(away) < 12 else None


def test_data_sets_of_other_layouts_are_mapped(tmp_path, shared_data):
    data = open_data(shared_data / "utkinect.npz")
    drawn = draw_map(data.select(np.arange(len(data)) < 60), tmp_path / "map.html", TINY)
    assert len(drawn.names) == 60 and drawn.thumbs.shape[3] == 25


def test_choices_have_no_effect_on_a_map_that_was_made(tmp_path):
    """faults.md 16: `draw_map(..., nonsense=1)`."""
    made = make_map(load_samples()[:4])
    with pytest.raises(ValueError, match="'nonsense' has no effect on a Map"):
        draw_map(made, tmp_path / "map.html", nonsense=1)
    with pytest.raises(TypeError, match="nonsense"):
        draw_map(load_samples()[:4], tmp_path / "map.html", nonsense=1)
    assert os.listdir(tmp_path) == []
