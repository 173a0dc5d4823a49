"""What 'usdrl inspect' prints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .tables import print_table, say

if TYPE_CHECKING:
    from ..data.inspection import FileFacts, RecordingFacts

# Where a layout comes from, in words; one that a file says needs none.
_ORIGINS = {
    "given": "as given",
    "names": "guessed from the names of the joints",
    "number of joints": "guessed from the number of joints",
}
# Recordings of one file that are listed.
_LISTED = 20


def print_facts(facts: FileFacts) -> None:
    """Print the facts of a file, a line each, and a table of its recordings where there are several."""
    if facts.film is not None:
        rate, seconds = facts.film["fps"], facts.film["seconds"]
        size = [facts.film["width"], facts.film["height"]]
        lines = [
            ("kind", facts.kind),
            ("frames", _or_unknown(facts.film["frames"])),
            ("rate", _rate(rate)),
            ("duration", "unknown" if seconds is None else f"{seconds:.1f} s"),
            ("pictures", "unknown" if None in size else f"{size[0]} x {size[1]}"),
        ]
    elif not facts.recordings:
        return
    else:
        lines = [("kind", facts.kind), *_lines(facts)]
    say(facts.path)
    for name, value in lines:
        say(f"  {name:<14} {value}")
    if len(facts.recordings) > 1:
        rows = [["name", "people", "frames", "rate", "unseen", "label"]]
        for one in facts.recordings[:_LISTED]:
            rows.append(
                [one.name, str(one.people), str(one.frames), _short_rate(one.fps), f"{100 * one.unseen:.1f} %"]
                + ["" if one.label is None else str(one.label)]
            )
        say("")
        print_table(rows)
        if len(facts.recordings) > _LISTED:
            say(f"and {len(facts.recordings) - _LISTED} more: --json lists all")


def _lines(facts: FileFacts) -> Iterable[tuple[str, str]]:
    """Names and values of what the recordings of a file share, or how far they range."""
    found = facts.recordings
    joints = _each(f"{one.layout} ({one.joints} joints)" for one in found)
    if facts.layout_from in _ORIGINS:
        joints += f", {_ORIGINS[facts.layout_from]}"
    yield "layout", joints
    if len(found) > 1:
        yield "recordings", str(len(found))
    yield "people", _range([one.people for one in found])
    frames = _range([one.frames for one in found])
    yield "frames", f"{sum(one.frames for one in found)} in all, {frames} each" if len(found) > 1 else frames
    if empty := sum(one.empty_frames for one in found):
        yield "", f"{empty} of them without people"
    yield "rate", _each(_rate(one.fps) for one in found)
    seconds = [one.seconds for one in found if one.seconds is not None]
    yield "duration", f"{sum(seconds):.1f} s" if len(seconds) == len(found) else "unknown: name the rate with --fps"
    yield "coordinates", _each(_coordinates(one) for one in found)
    if shapes := [one.image_shape for one in found if one.image_shape is not None]:
        yield "image", _each(f"{width:g} x {height:g}" for height, width in shapes)
    if ups := [one.up for one in found if one.up is not None]:
        yield "up", _each(ups)
        heights = [one.height for one in found if one.height is not None]
        yield "body height", f"about {_range(heights, '{:.2f}')} m" if heights else "unknown"
    share = sum(one.unseen * one.frames for one in found) / sum(one.frames for one in found)
    yield "unseen joints", f"{100 * share:.1f} %"


def _coordinates(one: RecordingFacts) -> str:
    if one.coordinates != "3d":
        return "2D, in pixels" + (", with scores" if one.coordinates == "2d+score" else "")
    origin = f" (in the file {one.file_units})" if one.file_units not in (None, one.units) else ""
    return f"3D, in {one.units}{origin}"


def facts_rows(files: Sequence[FileFacts], folder: Path) -> list[list[str]]:
    """Rows of a table with a line for each file, named by its path below a folder; empty columns are left out."""
    rows = [["file", "kind", "layout", "recordings", "people", "frames", "rate", "seconds"]]
    rows[0] += ["coordinates", "up", "height", "unseen"]
    for facts in files:
        name = Path(facts.path).relative_to(folder).as_posix()
        found = facts.recordings
        if facts.film is not None:
            frames, seconds = facts.film["frames"], facts.film["seconds"]
            rest = [_or_unknown(frames), _short_rate(facts.film["fps"]), "" if seconds is None else f"{seconds:.1f}"]
            rows.append([name, facts.kind, "", "", "", *rest, "", "", "", ""])
        elif found:
            times = [one.seconds for one in found if one.seconds is not None]
            share = sum(one.unseen * one.frames for one in found) / sum(one.frames for one in found)
            heights = [one.height for one in found if one.height is not None]
            rows.append(
                [name, facts.kind, _each(one.layout for one in found), str(len(found))]
                + [_range([one.people for one in found]), str(sum(one.frames for one in found))]
                + [_each(_short_rate(one.fps) for one in found), f"{sum(times):.1f}" if times else ""]
                + [_each("3D" if one.coordinates == "3d" else "2D" for one in found)]
                + [_each(one.up for one in found if one.up), f"{_range(heights, '{:.2f}')} m" if heights else ""]
                + [f"{100 * share:.1f} %"]
            )
        else:
            rows.append([name, "not read", *[""] * 10])
    used = [any(row[column] for row in rows[1:]) for column in range(len(rows[0]))]
    return [[cell for cell, is_used in zip(row, used, strict=True) if is_used] for row in rows]


def summary_line(summary: dict[str, Any]) -> str:
    """The sums over a folder, a line each."""
    counts = f"{summary['files']} files" + (f" ({summary['unreadable']} not read)" if summary["unreadable"] else "")
    time = [f"{summary['seconds'] / 60:.1f} minutes"] if summary["seconds"] else []
    if summary["without_rate"]:
        time.append(f"{summary['without_rate']} recordings without a rate (name it with --fps)")
    lines = [", ".join([counts, f"{summary['recordings']} recordings", f"{summary['frames']} frames", *time])]
    for name in ("kinds", "layouts"):
        if summary[name]:
            lines.append(f"{name}: " + ", ".join(f"{value} ({count})" for value, count in summary[name].items()))
    return "\n".join(lines)


def _each(values: Iterable[str]) -> str:
    """Different values, in the order in which they come."""
    return ", ".join(dict.fromkeys(values))


def _range(values: Sequence[float], form: str = "{}") -> str:
    """The values from the least to the largest."""
    if not values:
        return "unknown"
    ends = [form.format(min(values)), form.format(max(values))]
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


def _rate(fps: float | None) -> str:
    return "unknown" if fps is None else f"{fps:g} frames per second"


def _short_rate(fps: float | None) -> str:
    return "" if fps is None else f"{fps:g}"


def _or_unknown(value: Any) -> str:
    return "unknown" if value is None else str(value)
