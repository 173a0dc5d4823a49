/* Skeletons on a canvas: shared by pages. They define `root` (the document's element) and
   `data.colors`, the colours of people; `style` holds the colours of the theme. */
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

function make(tag, className, text, parent) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  if (parent) parent.append(element);
  return element;
}

/* ---- what Python packed: base64 of 16-bit numbers, 65535 for a joint that is not seen ---- */
function numbers(text) {
  const raw = atob(text), bytes = new Uint8Array(raw.length);
  for (let place = 0; place < raw.length; place++) bytes[place] = raw.charCodeAt(place);
  return new Uint16Array(bytes.buffer);
}
function unpack(scene) {
  const packed = numbers(scene.data), channels = scene.channels, count = packed.length / channels;
  scene.points = new Float32Array(3 * count);
  scene.seen = new Uint8Array(count);
  for (let joint = 0; joint < count; joint++) {
    scene.seen[joint] = packed[joint * channels] !== 65535;
    for (let axis = 0; axis < channels; axis++)
      scene.points[3 * joint + axis] = scene.low[axis] + scene.step * packed[joint * channels + axis];
  }
  const [low, high] = scene.box;
  scene.center = low.map((value, axis) => (value + high[axis]) / 2);
  scene.half = low.map((value, axis) => Math.max((high[axis] - value) / 2, 1e-9));
  scene.flat = channels === 2;
  return scene;
}

/* ---- colours ---- */
let style = {};
function mix(color, other, share) {
  const [a, b] = [color, other].map(text => [1, 3, 5].map(place => parseInt(text.slice(place, place + 2), 16)));
  return "#" + a.map((value, place) => Math.round(value + (b[place] - value) * share).toString(16).padStart(2, "0")).join("");
}

const tone = color => (style.dark ? mix(color, "#ffffff", 0.3) : color);
function personColor(person, side) {
  const color = tone(data.colors[person % data.colors.length]);
  return side < 0 ? mix(color, style.far, style.dark ? 0.38 : 0.45) : color;
}
function readStyle(theme) {
  root.dataset.theme = theme;
  const values = getComputedStyle(root);
  style = { dark: theme === "dark" };
  for (const name of ["stage", "panel", "ink", "muted", "line", "accent", "grid", "far"]) style[name] = values.getPropertyValue("--" + name).trim();
  style.palette = data.colors.map((_, person) => [-1, 0, 1].map(side => personColor(person, side)));
}

/* ---- projection and drawing ---- */
function projector(of, view, width, height) {
  const center = view.center || of.center, far = Math.hypot(...of.half), distance = of.flat ? Infinity : 5 * far;
  const scale = Math.max(Math.min(width, height) / (2 * far) * view.zoom, 1e-9);
  const ca = Math.cos(view.azimuth), sa = Math.sin(view.azimuth), ce = Math.cos(view.elevation), se = Math.sin(view.elevation);
  const middleX = width / 2 + view.x, middleY = height / 2 + view.y;
  const project = (px, py, pz, out) => {
    const x = px - center[0], y = py - center[1], z = pz - center[2];
    const across = x * ca - z * sa, towards = x * sa + z * ca;
    const depth = y * se + towards * ce;
    const near = of.flat ? 1 : 1 / Math.max(1 - depth / distance, 0.15);
    out[0] = middleX + across * scale * near;
    out[1] = middleY - (y * ce - towards * se) * scale * near;
    out[2] = depth; out[3] = near;
    return out;
  };
  project.scale = scale;
  return project;
}
/* The view from the front that shows everything; `follow` is the centre of each frame. */
function frontView(of, width, height, edge, follow) {
  const view = { azimuth: of.azimuth, elevation: of.elevation, zoom: 1, x: 0, y: 0, follow, own: true };
  const project = projector(of, view, width, height), [low, high] = of.box, place = [0, 0, 0, 0];
  const least = [Infinity, Infinity], most = [-Infinity, -Infinity], count = of.seen.length / of.frames;
  const step = Math.max(Math.floor(of.seen.length / 20000), 1);
  for (let at = 0; at < of.seen.length; at += step) {
    const point = of.points.subarray(3 * at, 3 * at + 3);
    if (!of.seen[at] || point.some((value, axis) => value < low[axis] - 1e-3 * of.half[axis] || value > high[axis] + 1e-3 * of.half[axis])) continue;
    const middle = follow ? follow[Math.floor(at / count)] : of.center;
    for (const height of of.floor === null ? [point[1]] : [point[1], of.floor]) {
      project(point[0] - middle[0] + of.center[0], height, point[2] - middle[2] + of.center[2], place);
      for (const axis of [0, 1]) { least[axis] = Math.min(least[axis], place[axis]); most[axis] = Math.max(most[axis], place[axis]); }
    }
  }
  if (least[0] === Infinity) return view;
  view.zoom = Math.min(...[width - 2 * edge[0], height - 2 * edge[1]].map((size, axis) => Math.max(size, 20) / Math.max(most[axis] - least[axis], 1e-6)), 50);
  view.x = (width / 2 - (least[0] + most[0]) / 2) * view.zoom;
  view.y = (height / 2 - (least[1] + most[1]) / 2) * view.zoom;
  return view;
}
/* The mean position of all people in each frame, smoothed over a second. */
function path(of) {
  const count = of.seen.length / of.frames, raw = [];
  for (let at = 0; at < of.frames; at++) {
    const sum = [0, 0, 0];
    let found = 0;
    for (let joint = at * count; joint < (at + 1) * count; joint++)
      if (of.seen[joint]) { found++; for (const axis of [0, 1, 2]) sum[axis] += of.points[3 * joint + axis]; }
    raw.push(found ? sum.map(value => value / found) : raw[at - 1] || of.center);
  }
  const reach = Math.round(of.fps / 2);
  return raw.map((_, at) => {
    const near = raw.slice(Math.max(at - reach, 0), at + reach + 1);
    return [0, 1, 2].map(axis => (axis === 1 && !of.flat ? of.center[1] : near.reduce((sum, place) => sum + place[axis], 0) / near.length));
  });
}
function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value)), rest = value / power;
  return power * (rest < 1.5 ? 1 : rest < 3.5 ? 2 : rest < 7.5 ? 5 : 10);
}
function gridStep(of) { return nice(Math.hypot(of.half[0], of.half[1], of.half[2]) / 3); }
function drawFloor(context, of, project) {
  const step = gridStep(of), reach = Math.max(Math.hypot(of.half[0], of.half[2]) * 1.5, of.half[1]);
  const lines = Math.ceil(reach / step), a = [0, 0, 0, 0], b = [0, 0, 0, 0];
  const middle = [Math.round(of.center[0] / step) * step, Math.round(of.center[2] / step) * step], far = lines * step;
  context.lineWidth = 1;
  for (let line = -lines; line <= lines; line++) {
    const strength = 0.75 * (1 - (line / (lines + 1)) ** 2);
    for (const along of [0, 1]) {
      const at = middle[1 - along] + line * step, from = middle[along] - far, to = middle[along] + far;
      if (along) { project(at, of.floor, from, a); project(at, of.floor, to, b); }
      else { project(from, of.floor, at, a); project(to, of.floor, at, b); }
      const fade = context.createLinearGradient(a[0], a[1], b[0], b[1]);
      fade.addColorStop(0, style.grid + "00"); fade.addColorStop(0.5, style.grid); fade.addColorStop(1, style.grid + "00");
      context.globalAlpha = strength;
      context.strokeStyle = fade;
      context.beginPath(); context.moveTo(a[0], a[1]); context.lineTo(b[0], b[1]); context.stroke();
    }
  }
  context.globalAlpha = 1;
}
function paperStep(of) { return nice(Math.max(of.half[0], of.half[1]) / 4); }
function drawPaper(context, of, project, width, height) {
  const step = paperStep(of), a = project(...of.center, [0, 0, 0, 0]), gap = step * project.scale;
  const x = a[0] - (of.center[0] / step % 1) * gap, y = a[1] + (of.center[1] / step % 1) * gap;
  context.strokeStyle = style.grid; context.globalAlpha = 0.28; context.lineWidth = 1;
  context.beginPath();
  for (let at = x - Math.ceil(x / gap) * gap; at < width; at += gap) { context.moveTo(at, 0); context.lineTo(at, height); }
  for (let at = y - Math.ceil(y / gap) * gap; at < height; at += gap) { context.moveTo(0, at); context.lineTo(width, at); }
  context.stroke();
  context.globalAlpha = 1;
}
function drawPicture(context, of, project) {
  const [left, low, right, high] = of.image, a = project(left, high, 0, [0, 0, 0, 0]).slice(), b = project(right, low, 0, [0, 0, 0, 0]);
  context.strokeStyle = style.grid; context.lineWidth = 1; context.setLineDash([4, 4]);
  context.strokeRect(a[0], a[1], b[0] - a[0], b[1] - a[1]);
  context.setLineDash([]);
}
function drawBodies(context, of, frame, project, hidden, thick, places) {
  const joints = of.joints.length, items = [], screen = [], shadow = new Path2D();
  if (places) places.count = 0;
  for (let person = 0; person < of.persons; person++) {
    if (hidden && hidden.has(person)) continue;
    const first = (frame * of.persons + person) * joints;
    for (let joint = 0; joint < joints; joint++) {
      const at = first + joint;
      screen[joint] = null;
      if (!of.seen[at]) continue;
      screen[joint] = project(of.points[3 * at], of.points[3 * at + 1], of.points[3 * at + 2], [0, 0, 0, 0]);
      items.push({ depth: screen[joint][2] + 1e-6, person, side: of.sides[joint], a: screen[joint], b: null });
      if (places) {
        places.xy.set([screen[joint][0], screen[joint][1]], 2 * places.count);
        places.joint[places.count++] = person * joints + joint;
      }
    }
    for (const [one, other] of of.edges) {
      const a = screen[one], b = screen[other];
      if (!a || !b) continue;
      items.push({ depth: (a[2] + b[2]) / 2, person, side: of.sides[one] || of.sides[other], a, b });
      if (of.floor === null) continue;
      const p = 3 * (first + one), q = 3 * (first + other), s = [0, 0, 0, 0];
      project(of.points[p], of.floor, of.points[p + 2], s); shadow.moveTo(s[0], s[1]);
      project(of.points[q], of.floor, of.points[q + 2], s); shadow.lineTo(s[0], s[1]);
    }
  }
  context.lineCap = context.lineJoin = "round";
  // One stroke for all limbs, so that overlapping ones are not darker.
  context.strokeStyle = style.dark ? "#00000070" : "#1d1d2014"; context.lineWidth = thick * 1.8; context.stroke(shadow);
  items.sort((one, other) => one.depth - other.depth);
  for (const item of items) {
    const color = style.palette[item.person % style.palette.length][item.side + 1];
    if (item.b) {
      context.strokeStyle = color; context.lineWidth = thick * (item.a[3] + item.b[3]) / 2;
      context.beginPath(); context.moveTo(item.a[0], item.a[1]); context.lineTo(item.b[0], item.b[1]); context.stroke();
    } else {
      context.fillStyle = color; context.strokeStyle = style.stage; context.lineWidth = Math.min(1.2, thick / 3);
      context.beginPath(); context.arc(item.a[0], item.a[1], thick * 0.85 * item.a[3], 0, 7); context.fill(); context.stroke();
    }
  }
}
function surface(canvas) {
  const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return [context, width, height];
}
