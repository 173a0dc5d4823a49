/* The page: it loads the networks, watches a camera or a film, and shows what the model says over time. */

/* ---- files in the page, and the runtime ---- */
async function unpacked(name) {
  const element = document.querySelector(`[data-file="${name}"]`), raw = atob(element.textContent), bytes = new Uint8Array(raw.length);
  for (let at = 0; at < raw.length; at++) bytes[at] = raw.charCodeAt(at);
  element.remove();
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}
async function runtimeFile(name) {
  const { address, files } = data.runtime;
  if (address === null) return unpacked(name);
  const answer = await fetch(address + name, { integrity: files[name], credentials: "omit", referrerPolicy: "no-referrer" });
  if (!answer.ok) throw new Error(`${answer.status}`);
  return answer.arrayBuffer();
}
async function loadRuntime() {
  const [script, glue, binary] = await Promise.all(Object.keys(data.runtime.files).map(runtimeFile));
  const address = file => URL.createObjectURL(new Blob([file], { type: "text/javascript" }));
  await new Promise((done, failed) => {
    const element = Object.assign(document.createElement("script"), { src: address(script), onload: done, onerror: failed });
    document.head.append(element);
  });
  Object.assign(ort.env.wasm, { wasmPaths: { mjs: address(glue) }, wasmBinary: binary, numThreads: 1 });
}
/* A network as a function of an array: its outputs by name. */
async function network(name, input, shape) {
  const session = await ort.InferenceSession.create(await unpacked(name), { executionProviders: ["wasm"] });
  return async values => {
    const found = await session.run({ [input]: new ort.Tensor("float32", values, shape) });
    return Object.fromEntries(Object.entries(found).map(([key, tensor]) => [key, tensor.data]));
  };
}

/* ---- the model ---- */
const isKnown = row => how.min_similarity === null || row.length === how.classes.length || row.at(-1) >= how.min_similarity;
const onlyClasses = row => row.slice(0, how.classes.length);
const { how, pose } = data, model = {}, joints = how.joints.length;
async function loadNetworks() {
  const square = side => [1, side, side, 3], clip = [1, how.num_frames, how.num_persons, joints, 3];
  const detector = await network("detector.onnx", "input", square(pose.detector_side));
  const landmarker = await network("lite.onnx", "input", square(pose.landmark_side));
  model.estimator = new PoseEstimator(detector, landmarker, pose, pose.persons);
  if (how.classes.length) model.scores = await network("model.onnx", "keypoints", clip);
  if (!data.gallery) return;
  model.embed = await network("encoder.onnx", "keypoints", clip);
  model.rows = new Float32Array(await unpacked("gallery.f32"));
  model.clips = JSON.parse(new TextDecoder().decode(await unpacked("gallery.json")));
}
/* Probabilities of a clip: one row of a recogniser, one for each frame of a detector. */
async function probabilities(clip) {
  const { logits, similarity } = await model.scores(clip), kinds = how.classes.length;
  const rows = Array.from({ length: logits.length / kinds }, (_, row) => softmax(logits.subarray(row * kinds, (row + 1) * kinds)));
  // Of a model that can tell what is none of its classes, the similarity to them is a further column.
  return how.min_similarity === null ? rows : rows.map(row => [...row, similarity[0]]);
}
/* What the model says of a whole recording, keypoints in the estimator's layout. */
async function analysed(keypoints) {
  const frames = convertJoints(keypoints, how), result = { whole: null, rows: null, segments: [], nearest: null };
  if (model.scores) {
    const rows = await frameProbabilities(frames, how, probabilities);
    result.rows = rows.map(onlyClasses);
    result.segments = segmentsOf(result.rows, how, rows.map(isKnown));
    if (data.kind === "recogniser") {
      const [whole] = await probabilities(makeClip(frames, how));
      result.whole = onlyClasses(whole); result.isKnown = isKnown(whole);
    }
  }
  if (model.embed) result.nearest = await nearest(makeClip(frames, how));
  return result;
}
async function nearest(clip) {
  const { readout, pooler_output } = await model.embed(clip);
  return nearestClips(readout || pooler_output, { rows: model.rows }, data.gallery.top_k);
}

/* ---- a camera or a film ---- */
const video = Object.assign(document.createElement("video"), { muted: true, playsInline: true });
const work = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const LONGEST_SIDE = 1280, LONGEST_RECORDING = 20 * 60;
let watching = null, recording = null;
const pause = seconds => new Promise(done => setTimeout(done, 1000 * seconds));

class Camera {
  name = "camera"; rate = data.fps; isLive = true;
  async open() {
    if (!navigator.mediaDevices) throw new Error("This browser gives the page no camera: open it from disk or over https, or drop a film.");
    const wanted = { video: { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: data.fps }, facingMode: "user" }, audio: false };
    try {
      this.stream = await navigator.mediaDevices.getUserMedia(wanted);
    } catch (error) {
      throw new Error({
        NotAllowedError: "The camera was refused: allow it in the browser's settings of this page, or drop a film.",
        NotFoundError: "There is no camera: connect one, or drop a film.",
        NotReadableError: "The camera is in use by another program: close that, or drop a film.",
      }[error.name] || `The camera cannot be used (${error.name}): drop a film.`);
    }
    video.srcObject = this.stream;
    await video.play();
    this.stream.getVideoTracks()[0].addEventListener("ended", () => { this.ended = true; });
    this.mirrorsView = this.stream.getVideoTracks()[0].getSettings().facingMode !== "environment";
    this.last = 0;
  }
  /* Time in seconds of the next picture, which is grabbed; null at the end. */
  async next() {
    await pause(Math.max(this.last + 1 / data.fps - performance.now() / 1000, 0));
    if (this.ended) return null;
    this.last = performance.now() / 1000;
    this.picture = grab(false);
    return this.last;
  }
  close() { if (this.stream) this.stream.getTracks().forEach(track => track.stop()); video.srcObject = null; }
}

class Film {
  rate = data.fps; isLive = false; gaps = []; steps = 0;
  constructor(file) { this.file = file; this.name = file.name; }
  async open() {
    this.address = URL.createObjectURL(this.file);
    const refused = `This browser cannot play ${this.name}: convert it to MP4 (H.264) or WebM.`;
    await new Promise((done, failed) => {
      video.onloadeddata = done; video.onerror = () => failed(new Error(refused));
      video.src = this.address;
    });
    if (!video.videoWidth) throw new Error(`There are no pictures in ${this.name}.`);
    this.waiting = null; this.time = -1; this.count = 0;
    video.onerror = () => this.finish(`${this.name} is damaged: it can be played up to here.`);
    video.onended = () => this.finish();
    this.watch();
    this.speed = 0.5;
    video.playbackRate = this.speed;
  }
  finish(message) { this.ended = true; if (message) say(message); if (this.waiting) this.waiting(null); }
  watch() {
    const seen = (_, picture) => { this.shown(picture); if (watching) this.watch(); };
    if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(seen);
    else requestAnimationFrame(() => seen(0, { mediaTime: video.currentTime, presentedFrames: 0 }));
  }
  /* Called at each picture that the browser shows; those that come while one is looked at are left out. */
  shown({ mediaTime, presentedFrames }) {
    if (mediaTime <= this.time || !this.waiting) return;
    const step = (this.count && presentedFrames - this.count) || 1;
    if (this.count && this.gaps.length < 300) this.gaps.push((mediaTime - this.time) / step);
    if (this.gaps.length > 2) this.rate = clamp(1 / median(this.gaps), 1, 240);
    // The film is played as fast as its pictures can be looked at.
    this.steps = step > 1 ? 0 : this.steps + 1;
    if (step > 1) this.play(this.speed * 0.85);
    else if (this.steps > 15) { this.steps = 0; this.play(this.speed * 1.15); }
    this.time = mediaTime; this.count = presentedFrames;
    this.picture = grab($("mirrored").checked);
    const waiting = this.waiting;
    this.waiting = null;
    waiting(mediaTime);
  }
  play(speed) { this.speed = clamp(speed, 0.0625, 2); video.playbackRate = this.speed; }
  async next() {
    if (this.ended) return null;
    if (this.time < 0) {
      // The first picture is there before the film is played; some films have no other.
      this.time = video.currentTime;
      this.picture = grab($("mirrored").checked);
      return this.time;
    }
    const coming = new Promise(done => { this.waiting = done; });
    if (video.paused && !document.hidden) video.play().catch(() => {});
    return coming;
  }
  close() { video.onerror = video.onended = null; video.pause(); video.removeAttribute("src"); video.load(); URL.revokeObjectURL(this.address); }
}
document.addEventListener("visibilitychange", () => {
  if (!(watching instanceof Film) || watching.ended) return;
  if (document.hidden) video.pause(); else video.play().catch(() => {});
});

/* The picture that the video shows. */
function grab(flipped) {
  const scale = Math.min(LONGEST_SIDE / Math.max(video.videoWidth, video.videoHeight), 1);
  const [width, height] = [video.videoWidth, video.videoHeight].map(size => Math.max(Math.round(size * scale), 1)), { canvas } = work;
  if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
  work.setTransform(flipped ? -1 : 1, 0, 0, 1, flipped ? width : 0, 0);
  work.drawImage(video, 0, 0, width, height);
  return { width, height, data: work.getImageData(0, 0, width, height).data };
}

async function start(source) {
  await stop();
  say("");
  recording = { name: source.name, pictures: [], results: [], found: null };
  for (const name of ["segments", "chart"]) $(name).hidden = true;
  $("when").textContent = "Now";
  charted = null;
  watching = source;
  showState();
  try {
    await source.open();
    $("welcome").hidden = true;
    model.estimator.reset();
    source.done = watch(source, recording);
    await source.done;
  } catch (error) {
    say(error.message);
  }
  source.close();
  if (watching === source) watching = null;
  showState();
}
async function stop() {
  if (!watching) return;
  const source = watching;
  source.ended = true;
  if (source.waiting) source.waiting(null);
  while (watching === source) await pause(0.01);
}
async function watch(source, recording) {
  const { pictures } = recording, rates = [];
  let begun = null, due = 0;
  for (;;) {
    const time = await source.next();
    if (time === null) break;
    begun ??= time;
    if (time - begun > LONGEST_RECORDING) { say("The recording ends here: it has reached 20 minutes."); break; }
    const { picture } = source, people = await model.estimator.track(picture, source.rate);
    pictures.push({ time: time - begun, people });
    rates.push(performance.now());
    drawPicture(picture, people, source.mirrorsView);
    showRate(rates.splice(0, Math.max(rates.length - 30, 0)) && rates);
    $("clock").textContent = `${(time - begun).toFixed(1)} s`;
    const frames = source.isLive ? (time - begun) * source.rate : pictures.length;
    if (frames < due) continue;
    due = Math.max(due + how.stride, Math.floor(frames) + 1);
    await predictNow(source, recording);
  }
  recording.rate = source.rate;
  await finish(source, recording);
}
/* What the model says of the last frames. */
async function predictNow(source, recording) {
  const { pictures } = recording, size = how.num_frames, end = pictures.at(-1).time, begin = Math.max(end - (size - 1) / source.rate, 0);
  let first = pictures.length - 1;
  while (first > 0 && pictures[first].time > begin) first--;
  const frames = steady(pictures.slice(first), source.rate, begin, end).slice(-size);
  if (frames.length < size / 4 || !frames.some(people => people.length)) return showNow(null);
  const clip = makeClip(convertJoints(keypointsOf(frames, pose), how), how);
  if (model.scores) {
    const rows = await probabilities(clip), row = rows.length === 1 ? rows[0] : smoothed(rows.slice(-how.shift_gap - 1), how.shift_gap).at(-1);
    recording.results.push({ time: end, row: onlyClasses(row) });
    showNow(onlyClasses(row), isKnown(row));
    drawChart(recording.results, 30);
  }
  if (model.embed) showNearest(await nearest(clip));
}
async function finish(source, recording) {
  const count = recording.pictures.length;
  if (!recording.pictures.some(({ people }) => people.length)) {
    if (count) say(`No person was found in the ${count} pictures of ${source.name}.`);
    recording.frames = null;
    return;
  }
  recording.frames = keypointsOf(steady(recording.pictures, recording.rate), pose);
  recording.found = await analysed(recording.frames);
  showResult(recording);
}

/* ---- what is shown ---- */
function say(text) { $("message").textContent = text; $("message").hidden = !text; }
function showState() {
  for (const name of ["camera", "open"]) $(name).disabled = !model.ready;
  $("stop").disabled = !watching;
  $("save").disabled = Boolean(watching) || !recording || !recording.frames;
  if (watching) $("rate").hidden = false;
}
function showRate(times) {
  if (times.length > 5) $("rate").textContent = `${(1000 * (times.length - 1) / (times.at(-1) - times[0])).toFixed(0)} pictures/s`;
}
let drawn = null;
function drawPicture(picture, people, mirrored) {
  drawn = [picture, people, mirrored];
  const [context, width, height] = surface($("view")), scale = Math.min(width / picture.width, height / picture.height);
  context.translate(width / 2, height / 2);
  context.scale(mirrored ? -scale : scale, scale);
  context.translate(-picture.width / 2, -picture.height / 2);
  context.drawImage(work.canvas, 0, 0);
  context.lineCap = "round";
  const seen = (person, joint) => person.visibility[joint] >= pose.min_visibility;
  people.forEach(person => {
    const shades = style.palette[person.track % style.palette.length], [shoulder, hip] = [pose.shoulders[0], pose.hips[0]].map(joint => person.image[joint]);
    // As thick as the person is large.
    const thick = clamp(0.09 * scale * Math.hypot(shoulder[0] - hip[0], shoulder[1] - hip[1]), 1.5, 7) / scale;
    for (const [a, b] of data.skeleton.edges) {
      if (!seen(person, a) || !seen(person, b)) continue;
      context.strokeStyle = shades[(data.skeleton.sides[a] || data.skeleton.sides[b]) + 1]; context.lineWidth = thick;
      context.beginPath(); context.moveTo(...person.image[a]); context.lineTo(...person.image[b]); context.stroke();
    }
    person.image.forEach((point, joint) => {
      if (!seen(person, joint)) return;
      context.fillStyle = "#fff"; context.beginPath(); context.arc(...point, 0.6 * thick, 0, 7); context.fill();
    });
  });
}
const percent = value => (value > 0 && value < 0.005 ? "< 1 %" : `${Math.round(100 * value)} %`);
const colorOf = kind => tone(how.has_background && kind === 0 ? data.background_color : data.class_colors[kind % data.class_colors.length]);
const likeliest = row => row.indexOf(Math.max(...row));
const bars = [];
function buildClasses() {
  $("prediction").hidden = !how.classes.length;
  for (let number = 0; number < Math.min(how.classes.length, 5); number++) {
    const row = make("div", "class", undefined, $("classes")), line = make("div", "", undefined, row);
    bars.push([make("span", "", "", line), make("span", "", "", line), make("i", "", undefined, make("p", "", undefined, row))]);
  }
}
function showNow(row, known = true) {
  $("top").replaceChildren(row ? (known ? how.classes[likeliest(row)] : data.none_of_these) : "…");
  if (row && known) $("top").append(" ", make("small", "", percent(Math.max(...row))));
  const order = row ? [...row.keys()].sort((one, other) => row[other] - row[one]) : [];
  bars.forEach(([label, value, fill], number) => {
    const kind = order[number];
    label.textContent = label.title = row ? how.classes[kind] : "";
    value.textContent = row ? percent(row[kind]) : "";
    fill.style.width = row ? `${100 * row[kind]}%` : "0";
    if (row) fill.style.background = colorOf(kind);
  });
}
/* Probabilities over time, the last `seconds` of them or all: of the classes with the highest peaks. */
let charted = null;
function drawChart(results, seconds) {
  const chart = $("chart");
  charted = [results, seconds];
  chart.hidden = false;
  const [context, width, height] = surface(chart), end = results.at(-1).time, begin = seconds ? Math.max(end - seconds, 0) : results[0].time;
  const shown = results.filter(({ time }) => time >= begin), span = Math.max(end - begin, 0.5), top = 6, bottom = height - 18;
  const peak = kind => Math.max(...shown.map(({ row }) => row[kind]));
  const kinds = how.classes.map((_, kind) => kind).filter(kind => kind || !how.has_background).sort((one, other) => peak(other) - peak(one)).slice(0, 5);
  context.strokeStyle = context.fillStyle = style.muted; context.font = "11px system-ui, sans-serif"; context.lineWidth = 1;
  for (const y of [top, bottom]) { context.globalAlpha = 0.4; context.beginPath(); context.moveTo(0, y); context.lineTo(width, y); context.stroke(); context.globalAlpha = 1; }
  const step = nice(span / Math.max(width / 110, 2));
  for (let time = Math.ceil(begin / step) * step; time <= end + 1e-6; time += step) {
    const x = (time - begin) / span * width;
    context.textAlign = x < 20 ? "left" : x > width - 20 ? "right" : "center";
    context.fillText(`${Number(time.toPrecision(6))} s`, x, height - 4);
  }
  context.lineWidth = 2; context.lineJoin = "round";
  for (const kind of kinds.toReversed()) {
    context.strokeStyle = colorOf(kind);
    context.beginPath();
    let pen = false;
    for (const { time, row } of shown) {
      if (!row.some(value => value)) { pen = false; continue; }
      context[pen ? "lineTo" : "moveTo"]((time - begin) / span * width, bottom - row[kind] * (bottom - top));
      pen = true;
    }
    context.stroke();
  }
}
const cards = [];
function showNearest(found) {
  const list = $("nearest");
  list.replaceChildren();
  cards.length = 0;
  for (const { number, similarity } of found) {
    const { name, label, scene } = model.clips[number], card = make("div", "clip", undefined, list), canvas = make("canvas", "", undefined, card);
    const text = make("div", "", undefined, card);
    if (label !== null) make("b", "", label, text);
    make(label === null ? "b" : "span", "", name, text);
    make("span", "", `similarity ${similarity.toFixed(3)}`, text);
    cards.push({ canvas, scene: scene.points ? scene : unpack(scene) });
  }
}
function drawClips(now) {
  for (const { canvas, scene } of cards) {
    const [context, width, height] = surface(canvas), at = Math.floor(now / 1000 * scene.fps) % scene.frames;
    if (!scene.view) { scene.path = path(scene); scene.view = frontView(scene, width, height, [5, 5], scene.path); }
    scene.view.center = scene.path[at];
    drawBodies(context, scene, at, projector(scene, scene.view, width, height), null, 2.4, null);
  }
  if (cards.length) setTimeout(() => requestAnimationFrame(drawClips), 100);
  else setTimeout(() => requestAnimationFrame(drawClips), 500);
}
function showResult({ found, rate, frames }) {
  $("clock").textContent = `${(frames.length / rate).toFixed(1)} s, ${frames.length} frames`;
  const body = $("segments").querySelector("tbody");
  body.replaceChildren();
  $("segments").hidden = !found.rows;
  if (found.nearest) showNearest(found.nearest);
  if (!found.rows) return;
  drawChart(found.rows.map((row, frame) => ({ time: frame / rate, row })), null);
  for (const { kind, start, end, score } of found.segments) {
    const row = make("tr", "", undefined, body);
    for (const text of [how.classes[kind], `${(start / rate).toFixed(2)} s`, `${(end / rate).toFixed(2)} s`, percent(score)]) make("td", "", text, row);
  }
  if (!found.segments.length) make("td", "", "(nothing)", make("tr", "", undefined, body)).colSpan = 4;
  if (found.whole) { $("when").textContent = "Whole recording"; showNow(found.whole, found.isKnown); }
}
function saveKeypoints() {
  const text = recordingJSON(recording.frames, recording.rate, { source: "usdrl export --page", name: recording.name });
  const link = make("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = `${recording.name.replace(/\.[^.]*$/, "").replace(/[^\w.-]+/g, "_") || "recording"}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

/* ---- put together ---- */
const wantsDark = matchMedia("(prefers-color-scheme: dark)");
function redraw() { if (drawn) drawPicture(...drawn); if (charted) drawChart(...charted); }
function setTheme(theme) { readStyle(theme); redraw(); }
$("theme").addEventListener("click", () => setTheme(style.dark ? "light" : "dark"));
wantsDark.addEventListener("change", event => setTheme(event.matches ? "dark" : "light"));
setTheme(wantsDark.matches ? "dark" : "light");
const people = pose.persons > 1 ? `up to ${pose.persons} persons` : "1 person", count = how.classes.length;
$("name").textContent = data.name;
$("facts").textContent = [`${data.kind}${count ? ` of ${count} classes` : ""}`, people, ...(data.gallery ? [`gallery of ${data.gallery.count} clips`] : [])].join(" \u00b7 ");
const host = data.runtime.address && new URL(data.runtime.address).host;
$("facts").title = how.classes.join(", ");
$("privacy").textContent = "Pictures are looked at on this device and never leave it. " + (host ? `The page loads ${data.runtime.name} from ${host}, checks it, and requests nothing else.` : "The page requests nothing from any network.");
$("about").textContent = `Poses by MediaPipe Pose (BlazePose, The MediaPipe Authors, Apache-2.0, converted to ONNX), run by ${data.runtime.name} (Microsoft, MIT)${host ? ` from ${host}` : ", which is part of this page"}.`;
new ResizeObserver(redraw).observe($("stage"));
buildClasses();
$("gallery").hidden = !data.gallery;
$("camera").addEventListener("click", () => start(new Camera()));
$("open").addEventListener("click", () => $("film").click());
$("film").addEventListener("change", () => { if ($("film").files[0]) start(new Film($("film").files[0])); $("film").value = ""; });
$("stop").addEventListener("click", stop);
$("save").addEventListener("click", saveKeypoints);
for (const [name, over] of [["dragover", true], ["dragleave", false], ["drop", false]])
  document.addEventListener(name, event => {
    event.preventDefault();
    $("stage").classList.toggle("over", over);
    if (name === "drop" && model.ready && event.dataTransfer.files[0]) start(new Film(event.dataTransfer.files[0]));
  });
(async () => {
  if (!window.DecompressionStream || !Array.prototype.toSorted) return say("This browser is too old for this page: use one of 2023 or later.");
  $("hint").textContent = "Loading …";
  try {
    await loadRuntime();
  } catch {
    return say(host ? `${data.runtime.name} could not be loaded from ${host}: connect to a network, or export the page with --runtime.` : `${data.runtime.name} does not run in this browser.`);
  }
  try {
    await loadNetworks();
  } catch (error) {
    return say(`The networks do not run in this browser: ${error.message}`);
  }
  model.ready = true;
  $("hint").textContent = "Use a camera, or open a film (or drop one here).";
  showState();
  requestAnimationFrame(drawClips);
})();
