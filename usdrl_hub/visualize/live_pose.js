/* People in pictures by BlazePose, as `usdrl_hub.inference.blazepose` finds them: the same squares, refinement, tracks
   and smoothing, with its constants (`how`). A picture is {width, height, data} of RGBA; a square {x, y, side, angle}. */

const distanceOf = (one, other) => Math.hypot(one.x - other.x, one.y - other.y) / Math.max(Math.min(one.side, other.side), 1e-6);

class PoseEstimator {
  /* `detector` and `landmarker` say the named outputs of a picture Float32Array (side, side, 3). */
  constructor(detector, landmarker, how, persons) {
    Object.assign(this, { detector, landmarker, how, persons });
    this.anchors = how.grids.flatMap(([cells, count]) => Array.from({ length: cells * cells * count }, (_, number) => {
      const cell = Math.floor(number / count);
      return [(cell % cells + 0.5) / cells, (Math.floor(cell / cells) + 0.5) / cells];
    }));
    this.inputs = {};
    this.reset();
  }
  reset() { this.tracks = []; this.lost = []; this.frame = 0; this.number = 0; this.searches = 0; this.thumbnail = null; }

  /* A turned square of a picture, bilinear, black outside; values are scaled to what a network reads. */
  crop({ width, height, data }, square, side, scale, offset) {
    const out = this.inputs[side] || (this.inputs[side] = new Float32Array(side * side * 3));
    const step = square.side / side, cosine = Math.cos(square.angle) * step, sine = Math.sin(square.angle) * step, middle = (side - 1) / 2;
    let at = 0;
    for (let row = 0; row < side; row++) for (let column = 0; column < side; column++, at += 3) {
      const x = square.x + cosine * (column - middle) - sine * (row - middle) - 0.5, y = square.y + sine * (column - middle) + cosine * (row - middle) - 0.5;
      const left = Math.floor(x), top = Math.floor(y), across = x - left, down = y - top;
      let red = 0, green = 0, blue = 0;
      for (let corner = 0; corner < 4; corner++) {
        const px = left + (corner & 1), py = top + (corner >> 1);
        if (px < 0 || py < 0 || px >= width || py >= height) continue;
        const weight = (corner & 1 ? across : 1 - across) * (corner >> 1 ? down : 1 - down), pixel = 4 * (py * width + px);
        red += weight * data[pixel]; green += weight * data[pixel + 1]; blue += weight * data[pixel + 2];
      }
      out[at] = red * scale + offset; out[at + 1] = green * scale + offset; out[at + 2] = blue * scale + offset;
    }
    return out;
  }
  around([x, y], rim) {
    const across = rim[0] - x, down = rim[1] - y;
    return { x, y, side: 2 * Math.hypot(across, down) * this.how.margin, angle: Math.PI / 2 - Math.atan2(-down, across) };
  }

  /* Squares around people, those in the foreground first: in the whole picture, then in squares of its short side; of
     these only one, by turns, where `turn` counts the searches. */
  async detect(picture, turn = null) {
    const { width, height } = picture, short = Math.min(width, height), side = Math.max(width, height), { same } = this.how;
    const windows = [{ x: width / 2, y: height / 2, side, angle: 0 }], found = [];
    const count = side > short ? Math.min(Math.ceil(2 * (side - short) / short) + 1, 6) : 0;
    for (let number = 0; number < count; number++) {
      const at = short / 2 + (side - short) * number / Math.max(count - 1, 1);
      windows.push({ x: width > height ? at : width / 2, y: width > height ? height / 2 : at, side: short, angle: 0 });
    }
    const searched = turn === null ? windows : windows.filter((_, number) => !number || number === 1 + turn % count);
    for (const window of searched) {
      if (found.length >= this.persons) break;
      for (const square of await this.detectIn(picture, window))
        if (found.every(other => distanceOf(square, other) >= 2 * same)) found.push(square);
    }
    return found.slice(0, this.persons);
  }
  async detectIn(picture, window) {
    const { how } = this, side = how.detector_side;
    const { boxes, scores } = await this.detector(this.crop(picture, window, side, 1 / 127.5, -1));
    const least = Math.log(how.threshold / (1 - how.threshold)), width = boxes.length / scores.length;
    const likely = [...scores.keys()].filter(number => scores[number] > least).sort((one, other) => scores[other] - scores[one] || one - other);
    const kept = [];
    for (const number of likely) {
      const box = Array.from(boxes.subarray(number * width, (number + 1) * width), value => value / side), anchor = this.anchors[number];
      const person = { box: [box[0] + anchor[0], box[1] + anchor[1], box[2], box[3]] };
      person.points = [4, 6].map(at => [0, 1].map(axis => (box[at + axis] + anchor[axis] - 0.5) * window.side + [window.x, window.y][axis]));
      if (kept.every(other => overlap(person.box, other.box) <= how.overlap)) kept.push(person);
      if (kept.length === this.persons) break;
    }
    return kept.map(person => this.around(...person.points));
  }

  /* The person in a square, and the square in which to look in the next picture. */
  async landmarks(picture, square) {
    const { how } = this, cosine = Math.cos(square.angle), sine = Math.sin(square.angle);
    const found = await this.landmarker(this.crop(picture, square, how.landmark_side, 1 / 255, 0));
    const points = refined(found.landmarks, found.heatmap, how).map(([x, y]) => {
      x -= 0.5; y -= 0.5;
      return [(cosine * x - sine * y) * square.side + square.x, (sine * x + cosine * y) * square.side + square.y];
    });
    const world = Array.from({ length: how.joints }, (_, joint) => {
      const [x, y, z] = found.world.subarray(3 * joint, 3 * joint + 3);
      return [cosine * x - sine * y, sine * x + cosine * y, z];
    });
    const visibility = world.map((_, joint) => 1 / (1 + Math.exp(-found.landmarks[5 * joint + 3])));
    const pose = { world, image: points.slice(0, how.joints), visibility, presence: found.presence[0] };
    return { pose, square: this.around(points[how.center], points[how.round]) };
  }

  /* The people in the next picture of a film or camera, who keep their numbers; `fps` is the rate of pictures. */
  async track(picture, fps) {
    const { how } = this, thumbnail = this.thumbnailOf(picture), before = this.thumbnail;
    const changed = before && before.length === thumbnail.length && thumbnail.reduce((sum, value, at) => sum + Math.abs(value - before[at]), 0) / thumbnail.length;
    if (before === null || changed === false || changed > how.cut) { this.tracks = []; this.lost = []; }
    this.thumbnail = thumbnail;
    const searches = !this.tracks.length || (this.tracks.length < this.persons && this.frame % how.search_every === 0);
    this.frame++;
    // While a person is tracked, a full search would take too long.
    if (searches) this.begin(await this.detect(picture, this.tracks.length ? this.searches++ : null));
    const found = [];
    for (const track of this.tracks) {
      const { pose, square } = await this.landmarks(picture, track.square);
      if (pose.presence >= how.threshold) found.push({ track, pose, square });
    }
    // Where two have come upon the same person, it is the one who was expected there.
    found.sort((one, other) => distanceOf(one.square, expected(one.track, 1)) - distanceOf(other.square, expected(other.track, 1)));
    const apart = [];
    for (const item of found) if (apart.every(other => distanceOf(item.square, other.square) >= how.same)) apart.push(item);
    for (const { track, square } of apart) move(track, square);
    const seen = apart.map(item => item.track);
    this.lost = [...this.lost, ...this.tracks.filter(track => !seen.includes(track))];
    for (const track of this.lost) track.lost++;
    this.lost = this.lost.filter(track => track.lost <= how.memory * fps);
    this.tracks = seen.sort((one, other) => one.number - other.number);
    apart.sort((one, other) => one.track.number - other.track.number);
    return apart.map(({ track, pose }) => ({ ...pose, track: track.number, world: smooth(track, pose.world, fps, how) }));
  }
  begin(squares) {
    for (const square of squares) {
      if (this.tracks.length === this.persons) break;
      if (this.tracks.some(track => distanceOf(square, track.square) < 2 * this.how.same)) continue;
      const away = track => distanceOf(square, expected(track, track.lost));
      const again = this.lost.toSorted((one, other) => away(one) - away(other))[0];
      if (again && away(again) < 0.5) {
        this.lost.splice(this.lost.indexOf(again), 1);
        move(again, square);
        again.position = null;
        this.tracks.push(again);
      } else this.tracks.push({ number: this.number++, square, velocity: [0, 0], lost: 0, position: null });
    }
  }
  thumbnailOf({ width, height, data }) {
    const across = Math.max(Math.floor(width / 24), 1), down = Math.max(Math.floor(height / 24), 1), values = [];
    for (let y = 0; y < height; y += down) for (let x = 0; x < width; x += across) {
      const pixel = 4 * (y * width + x);
      values.push((data[pixel] + data[pixel + 1] + data[pixel + 2]) / 3);
    }
    return values;
  }
}

/* Where a tracked person is likely to be some frames later. */
function expected(track, frames) {
  return { ...track.square, x: track.square.x + frames * track.velocity[0], y: track.square.y + frames * track.velocity[1] };
}
function move(track, square) {
  const step = [square.x - track.square.x, square.y - track.square.y].map(value => value / (track.lost + 1));
  track.velocity = track.velocity.map((value, axis) => 0.7 * value + 0.3 * step[axis]);
  track.square = square; track.lost = 0;
}
/* One-Euro filter of positions in metres. */
function smooth(track, world, fps, how) {
  const weight = cutoff => 1 / (1 + fps / (2 * Math.PI * cutoff)), slow = weight(how.speed_cutoff);
  if (!track.position) {
    track.speed = world.map(() => [0, 0, 0]);
    track.position = world;
    return world;
  }
  track.speed = track.speed.map((speed, joint) => speed.map((value, axis) => slow * (world[joint][axis] - track.position[joint][axis]) * fps + (1 - slow) * value));
  track.position = world.map((point, joint) => {
    const share = weight(how.min_cutoff + how.beta * Math.hypot(...track.speed[joint]));
    return point.map((value, axis) => share * value + (1 - share) * track.position[joint][axis]);
  });
  return track.position;
}
/* Intersection over union of two boxes (middle, size). */
function overlap(one, other) {
  const shared = [0, 1].map(axis => Math.max(Math.min(one[axis] + one[axis + 2] / 2, other[axis] + other[axis + 2] / 2) - Math.max(one[axis] - one[axis + 2] / 2, other[axis] - other[axis + 2] / 2), 0));
  const area = shared[0] * shared[1];
  return area / (one[2] * one[3] + other[2] * other[3] - area);
}
/* Landmarks in [0, 1], moved to the middle of the heat around them where that is high. */
function refined(landmarks, heatmap, how) {
  const side = how.heatmap_side, count = landmarks.length / 5, reach = 3, points = [];
  for (let joint = 0; joint < count; joint++) {
    let x = landmarks[5 * joint] / how.landmark_side, y = landmarks[5 * joint + 1] / how.landmark_side;
    const column = Math.floor(x * side), row = Math.floor(y * side);
    if (column >= 0 && row >= 0 && column < side && row < side) {
      let total = 0, across = 0, down = 0, most = 0;
      for (let v = Math.max(row - reach, 0); v <= Math.min(row + reach, side - 1); v++) for (let u = Math.max(column - reach, 0); u <= Math.min(column + reach, side - 1); u++) {
        const heat = 1 / (1 + Math.exp(-heatmap[(v * side + u) * count + joint]));
        total += heat; across += u * heat; down += v * heat; most = Math.max(most, heat);
      }
      if (most >= 0.5) { x = across / total / side; y = down / total / side; }
    }
    points.push([x, y]);
  }
  return points;
}

/* ---- recordings ---- */
/* Pictures at irregular times as frames at a steady rate; poses between two pictures are interpolated. */
function steady(pictures, fps, from = pictures[0].time, to = pictures.at(-1).time) {
  const frames = [], lengths = 1 / fps;
  let next = 0;
  for (let number = 0; from + number * lengths <= to + 1e-6; number++) {
    const time = from + number * lengths;
    while (next < pictures.length - 1 && pictures[next + 1].time <= time + 1e-6) next++;
    const before = pictures[next], after = pictures[Math.min(next + 1, pictures.length - 1)], gap = after.time - before.time;
    const share = gap > 0 ? clamp((time - before.time) / gap, 0, 1) : 0, near = share < 0.5 ? before : after;
    // Nobody is invented in a longer gap, as while another tab was shown.
    if (gap > 0.5) frames.push(Math.abs(near.time - time) <= 0.25 ? near.people : []);
    else frames.push(near.people.map(person => {
      const [one, other] = [before, after].map(picture => picture.people.find(found => found.track === person.track));
      return one && other && share ? between(one, other, share) : person;
    }));
  }
  return frames;
}
function between(one, other, share) {
  const mixed = (a, b) => a.map((value, at) => (Array.isArray(value) ? mixed(value, b[at]) : value + share * (b[at] - value)));
  return { ...one, world: mixed(one.world, other.world), image: mixed(one.image, other.image), visibility: mixed(one.visibility, other.visibility) };
}
const median = values => {
  const sorted = values.toSorted((one, other) => one - other), middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};
/* Frames of people as keypoints in metres, y down; bodies move in the plane of the picture as they do in it, and joints
   that are hardly visible are zero. */
function keypointsOf(frames, how) {
  const numbers = [...new Set(frames.flatMap(people => people.map(person => person.track)))].sort((one, other) => one - other);
  const result = new Frames(frames.length, numbers.length, how.joints), middle = (points, joints, axis) => (points[joints[0]][axis] + points[joints[1]][axis]) / 2;
  numbers.forEach((number, place) => {
    const own = frames.flatMap((people, frame) => people.filter(person => person.track === number).map(person => ({ frame, person })));
    const torso = points => Math.hypot(...[0, 1].map(axis => middle(points, how.shoulders, axis) - middle(points, how.hips, axis)));
    const scale = median(own.map(({ person }) => torso(person.world) / Math.max(torso(person.image), 1e-6)));
    for (const { frame, person } of own) {
      const path = [0, 1].map(axis => middle(person.image, how.hips, axis) * scale);
      person.world.forEach((point, joint) => {
        if (person.visibility[joint] < how.min_visibility) return;
        result.values.set([point[0] + path[0], point[1] + path[1], point[2]], result.at(frame, place, joint));
      });
    }
  });
  return result;
}
/* Keypoints as JSON of MediaPipe's world landmarks, which `usdrl` reads. */
function recordingJSON(frames, fps, about) {
  const list = [], point = (values, at) => ({ x: values[at], y: values[at + 1], z: values[at + 2] });
  for (let frame = 0; frame < frames.length; frame++) {
    const people = [...Array(frames.persons).keys()].filter(person => frames.seen(frame, person));
    list.push({ frame, pose_world_landmarks: people.map(person => Array.from({ length: frames.joints }, (_, joint) => point(frames.values, frames.at(frame, person, joint)))) });
  }
  return JSON.stringify({ ...about, fps, frames: list });
}
