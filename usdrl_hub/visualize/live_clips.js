/* From keypoints to what a model says of them: `usdrl_hub`'s conversion of joints, preprocessing, windows, averaging,
   segments and search, from what the model's configuration says (`how`). Nothing here knows a model or a layout. */

/* Keypoints of people over time: `values` is a Float32Array of (length, persons, joints, 3); all zero is not seen. */
class Frames {
  constructor(length, persons, joints, values) {
    this.length = length; this.persons = persons; this.joints = joints;
    this.values = values || new Float32Array(length * persons * joints * 3);
  }
  at(frame, person, joint) { return 3 * ((frame * this.persons + person) * this.joints + joint); }
  seen(frame, person) {
    const start = this.at(frame, person, 0), end = start + 3 * this.joints;
    for (let at = start; at < end; at++) if (this.values[at]) return true;
    return false;
  }
  jointSeen(frame, person, joint) {
    const at = this.at(frame, person, joint), values = this.values;
    return Boolean(values[at] || values[at + 1] || values[at + 2]);
  }
  slice(start, end) {
    const size = 3 * this.persons * this.joints;
    return new Frames(end - start, this.persons, this.joints, this.values.subarray(start * size, end * size));
  }
}

/* ---- joints of another layout ---- */
function convertJoints(frames, how) {
  const { length, persons } = frames, result = new Frames(length, persons, how.joints.length), point = [0, 0, 0];
  for (let frame = 0; frame < length; frame++) for (let person = 0; person < persons; person++) {
    for (let joint = 0; joint < how.joints.length; joint++) {
      const parts = how.joints[joint], there = parts.map(([part]) => frames.jointSeen(frame, person, part));
      // Of missing joints nothing is extended: what is left is averaged.
      const whole = there.every(Boolean);
      let total = 0;
      point.fill(0);
      parts.forEach(([part, weight], number) => {
        const share = whole ? weight : there[number] ? Math.max(weight, 0) : 0, at = frames.at(frame, person, part);
        total += share;
        for (let axis = 0; axis < 3; axis++) point[axis] += share * frames.values[at + axis];
      });
      const at = result.at(frame, person, joint), scale = whole ? 1 : total > 0 ? 1 / total : 0;
      for (let axis = 0; axis < 3; axis++) result.values[at + axis] = how.signs[axis] * scale * point[how.axes[axis]];
    }
  }
  return result;
}

/* ---- people ---- */
/* How much each person moves: the sum of the coordinates' deviations; -Infinity if never seen. */
function personEnergy(frames) {
  return Array.from({ length: frames.persons }, (_, person) => {
    const there = Array.from({ length: frames.length }, (_, frame) => frame).filter(frame => frames.seen(frame, person));
    const count = there.length * frames.joints;
    let energy = 0;
    for (let axis = 0; axis < 3 && count; axis++) {
      const values = there.flatMap(frame => Array.from({ length: frames.joints }, (_, joint) => frames.values[frames.at(frame, person, joint) + axis]));
      const mean = values.reduce((sum, value) => sum + value, 0) / count;
      energy += Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / count);
    }
    return count ? energy : -Infinity;
  });
}
function selectPersons(frames, count) {
  let order = [...Array(frames.persons).keys()];
  if (frames.persons > 1) {
    let scores = personEnergy(frames);
    if (scores.filter(score => score > -Infinity).length <= count) scores = scores.map(score => Number(score > -Infinity));
    order.sort((one, other) => (scores[one] === scores[other] ? one - other : scores[other] - scores[one]));
  }
  order = order.slice(0, count);
  const result = new Frames(frames.length, count, frames.joints);
  for (let frame = 0; frame < frames.length; frame++) order.forEach((person, place) => {
    result.values.set(frames.values.subarray(frames.at(frame, person, 0), frames.at(frame, person + 1, 0)), result.at(frame, place, 0));
  });
  return result;
}
/* Joints that are not seen at the nearest seen joints of the same body; `distances` counts the bones between joints. */
function fillJoints(frames, distances) {
  const { length, persons, joints } = frames, result = new Frames(length, persons, joints, frames.values.slice());
  for (let frame = 0; frame < length; frame++) for (let person = 0; person < persons; person++) {
    const there = [...Array(joints).keys()].filter(joint => frames.jointSeen(frame, person, joint));
    if (!there.length || there.length === joints) continue;
    for (let joint = 0; joint < joints; joint++) {
      if (frames.jointSeen(frame, person, joint)) continue;
      const nearest = Math.min(...there.map(other => distances[joint][other]));
      const weights = there.map(other => 2 ** (-10 * (distances[joint][other] - nearest))), total = weights.reduce((sum, weight) => sum + weight, 0);
      for (let axis = 0; axis < 3; axis++)
        result.values[result.at(frame, person, joint) + axis] = there.reduce((sum, other, number) => sum + weights[number] / total * frames.values[frames.at(frame, person, other) + axis], 0);
    }
  }
  return result;
}
/* The frame that each person's frame is read from: empty beginnings are skipped, and empty ends repeat what was. */
function filledIndex(frames) {
  return Array.from({ length: frames.persons }, (_, person) => {
    const all = [...Array(frames.length).keys()], there = all.filter(frame => frames.seen(frame, person));
    if (!there.length || there.length === frames.length) return all;
    const source = there[0] ? there : all.slice(0, there.at(-1) + 1);
    return all.map(frame => source[frame % source.length]);
  });
}

/* ---- turning ---- */
const IDENTITY = [[1, 0, 0], [0, 1, 0], [0, 0, 1]];
const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const applied = (matrix, vector) => matrix.map(row => dot(row, vector));
const product = (left, right) => left.map(row => [0, 1, 2].map(column => dot(row, right.map(other => other[column]))));
function rotationOnto(vector, target, least) {
  const normal = [1, 2, 0].map((a, axis) => vector[a] * target[(axis + 2) % 3] - vector[(axis + 2) % 3] * target[a]);
  const angle = Math.acos(clamp(dot(vector, target) / Math.max(Math.hypot(...vector), 1e-300), -1, 1));
  const sum = values => values.reduce((total, value) => total + Math.abs(value), 0);
  if (Math.min(sum(vector), sum(normal), angle) < least) return IDENTITY;
  const [x, y, z] = normal.map(value => value / Math.hypot(...normal)), cross = [[0, -z, y], [z, 0, -x], [-y, x, 0]];
  const twice = product(cross, cross), sine = Math.sin(angle), cosine = Math.cos(angle);
  return IDENTITY.map((row, a) => row.map((value, b) => value + sine * cross[a][b] + (1 - cosine) * twice[a][b]));
}
/* How centred coordinates are turned and scaled, by what `read` says of person 0. */
function bodyChange(frames, read, how) {
  const between = (frame, [start, end]) => { const a = read(frame, 0, start), b = read(frame, 0, end); return b.map((value, axis) => value - a[axis]); };
  let change = IDENTITY;
  if (how.upright && how.x_axis) {
    const first = [...Array(how.first_frames).keys()].map(frame => between(Math.min(frame, frames.length - 1), how.x_axis));
    const [x, , z] = [0, 1, 2].map(axis => first.reduce((sum, vector) => sum + vector[axis], 0) / first.length), length = Math.hypot(x, z);
    if (length >= how.least) change = [[x / length, 0, z / length], [0, 1, 0], [-z / length, 0, x / length]];
  } else {
    for (const [joints, target] of [[how.z_axis, [0, 0, 1]], [how.x_axis, [1, 0, 0]]])
      if (joints) change = product(rotationOnto(applied(change, between(0, joints)), target, how.least), change);
  }
  if (!how.torso) return change;
  let total = 0, count = 0;
  for (let frame = 0; frame < frames.length; frame++) {
    if (!how.torso.every(joint => frames.jointSeen(frame, 0, joint))) continue;
    const [a, b] = how.torso.map(joint => frames.values.subarray(frames.at(frame, 0, joint), frames.at(frame, 0, joint) + 3));
    total += Math.hypot(b[0] - a[0], b[1] - a[1], b[2] - a[2]); count++;
  }
  const mean = total / Math.max(count, 1), scale = mean < how.least ? 1 : how.torso_length / mean;
  return change.map(row => row.map(value => value * scale));
}

/* ---- the clip that a model reads ---- */
/* Float32Array (num_frames, num_persons, joints, 3) of keypoints in the model's layout. */
function makeClip(frames, how) {
  frames = selectPersons(frames, how.num_persons);
  if (how.max_frames !== null && frames.length > how.max_frames) frames = frames.slice(0, how.max_frames);
  if (how.distances) frames = fillJoints(frames, how.distances);
  const filled = how.fill ? filledIndex(frames) : null, round = Math.fround, center = how.center_joint;
  const read = (frame, person, joint) => {
    const source = of => (filled ? filled[of][frame] : frame), at = frames.at(source(person), person, joint), values = frames.values;
    const point = [values[at], values[at + 1], values[at + 2]];
    if (center === null) return point;
    // A joint whose coordinates sum to zero counts as missing.
    if (round(round(point[0] + point[1]) + point[2]) === 0) return [0, 0, 0];
    const origin = frames.at(source(0), 0, center);
    return point.map((value, axis) => round(value - values[origin + axis]));
  };
  const change = bodyChange(frames, read, how), size = how.num_frames, clip = new Float32Array(size * how.num_persons * frames.joints * 3);
  let at = 0;
  for (let frame = 0; frame < size; frame++) {
    const position = Math.max((frame + 0.5) * frames.length / size - 0.5, 0), before = Math.min(Math.floor(position), frames.length - 1);
    const after = Math.min(before + 1, frames.length - 1), weight = position % 1;
    for (let person = 0; person < how.num_persons; person++) for (let joint = 0; joint < frames.joints; joint++) {
      const a = read(before, person, joint), b = read(after, person, joint);
      const point = a.map((value, axis) => value + weight * (b[axis] - value));
      for (let axis = 0; axis < 3; axis++) clip[at++] = dot(change[axis], point);
    }
  }
  return clip;
}
/* First frames of the windows of a recording; the last one ends at its end. */
function windowStarts(length, size, stride) {
  const last = Math.max(length - size, 0), starts = [];
  for (let start = 0; start < last; start += stride) starts.push(start);
  return [...starts, last];
}

/* ---- from scores to what is shown ---- */
function softmax(logits) {
  const most = Math.max(...logits), powers = Array.from(logits, value => Math.exp(value - most));
  const total = powers.reduce((sum, value) => sum + value, 0);
  return powers.map(value => value / total);
}
/* Rows resized to another number by linear interpolation. */
function resized(rows, length) {
  return Array.from({ length }, (_, frame) => {
    const position = Math.max((frame + 0.5) * rows.length / length - 0.5, 0), before = Math.min(Math.floor(position), rows.length - 1);
    const after = Math.min(before + 1, rows.length - 1), weight = position % 1;
    return rows[before].map((value, kind) => value * (1 - weight) + rows[after][kind] * weight);
  });
}
/* Probabilities of every frame, averaged over the windows that contain it, smoothed over the encoder's shift gap;
   all 0 where nobody is visible. `compute` says the rows of a window: one of a recogniser, one a frame of a detector. */
async function frameProbabilities(frames, how, compute) {
  const size = how.num_frames, columns = how.classes.length + (how.min_similarity === null ? 0 : 1);
  const total = Array.from({ length: frames.length }, () => new Array(columns).fill(0)), count = new Array(frames.length).fill(0);
  frames = frames.persons > how.num_persons ? selectPersons(frames, how.num_persons) : frames;
  for (const start of windowStarts(frames.length, size, how.stride)) {
    const window = frames.slice(start, Math.min(start + size, frames.length));
    if (!window.values.some(value => value)) continue;
    const rows = await compute(makeClip(window, how));
    const spread = rows.length === 1 || rows.length === window.length ? rows : resized(rows, window.length);
    for (let frame = 0; frame < window.length; frame++) {
      count[start + frame]++;
      spread[spread.length === 1 ? 0 : frame].forEach((value, kind) => { total[start + frame][kind] += value; });
    }
  }
  return smoothed(total.map((row, frame) => row.map(value => value / Math.max(count[frame], 1))), how.shift_gap);
}
function smoothed(rows, gap) {
  if (gap === 1) return rows;
  const half = Math.floor(gap / 2), seen = rows.map(row => row.some(value => value));
  return rows.map((row, frame) => {
    if (!seen[frame]) return row;
    const sum = new Array(row.length).fill(0);
    let total = 0;
    for (let other = Math.max(frame - half, 0); other <= Math.min(frame + half, rows.length - 1); other++) {
      // The two ends of an even gap have the same phase and share a weight.
      const weight = !seen[other] ? 0 : gap % 2 === 0 && Math.abs(other - frame) === half ? 0.5 : 1;
      total += weight;
      rows[other].forEach((value, kind) => { sum[kind] += weight * value; });
    }
    return sum.map(value => value / Math.max(total, 0.5));
  });
}
/* Segments {kind, start, end, score} in order of time: a detector's runs above the threshold, of classes but the
   background; of a recogniser the runs of frames with the same most probable class. */
function segmentsOf(rows, how, known = null) {
  const best = rows.map((row, frame) => (row.some(value => value) && (!known || known[frame]) ? row.indexOf(Math.max(...row)) : -1)), found = [];
  for (let kind = how.has_background ? 1 : 0; kind < how.classes.length; kind++) {
    const inside = frame => (how.has_background ? rows[frame][kind] > how.threshold : best[frame] === kind);
    for (let start = 0; start < rows.length; start++) {
      if (!inside(start)) continue;
      let end = start, sum = 0;
      while (end < rows.length && inside(end)) sum += rows[end++][kind];
      found.push({ kind, start, end, score: sum / (end - start) });
      start = end;
    }
  }
  return found.sort((one, other) => one.start - other.start);
}
/* The clips of a gallery with the largest cosine, most similar first; its rows (Float32Array) have length 1. */
function nearestClips(embedding, gallery, count) {
  const size = embedding.length, length = Math.hypot(...embedding) || 1;
  const found = Array.from({ length: gallery.rows.length / size }, (_, number) => {
    let sum = 0;
    for (let at = 0; at < size; at++) sum += embedding[at] * gallery.rows[number * size + at];
    return { number, similarity: sum / length };
  });
  return found.sort((one, other) => other.similarity - one.similarity).slice(0, count);
}
