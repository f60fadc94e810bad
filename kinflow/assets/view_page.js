// The page around the scene: clock, film, orbit, time line, and window.kinflow for whoever looks in from a console.

(function () {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  let scene;
  try {
    scene = new Scene($("scene"), data);
  } catch (fault) {
    $("fault").style.display = "flex";
    $("fault").textContent = `${fault.message || fault} The film and the time line work all the same.`;
    scene = null;
  }
  const people = scene ? scene.people : data.people.map((p) => new Person(p, data.parents));
  const film = $("film");
  const FOV = 40;
  const [first, last] = data.span;
  let now = first, playing = false, speed = 1, ticked = 0, shownView = "orbit";
  const orbit = { target: [0, 0, 0], yaw: 0, pitch: 0.2, distance: 5 };
  let home = [0, 0, 0]; // where people are on the whole; follow moves the target from it

  // -- film --------------------------------------------------------------------------------------------------------------

  let filmReady = false;
  if (data.film.src || data.film.embedded) {
    $("film-box").classList.add("on");
    film.addEventListener("loadedmetadata", () => { filmReady = true; seek(now); });
    film.addEventListener("error", () => {
      filmReady = false;
      film.style.display = "none";
      $("film-note").style.display = "block";
      $("film-note").textContent = data.film.embedded
        ? "This browser does not play the film (H.264)."
        : `${data.film.src} is not beside this page, or this browser does not play it: keep the two files together.`;
    });
    if (data.film.embedded) {
      film.src = URL.createObjectURL(new Blob([unpack(data.film.embedded, Uint8Array)], { type: "video/mp4" }));
    } else {
      film.src = data.film.src;
    }
  }
  const filmTime = () => data.film.begin + film.currentTime;
  const filmHolds = (time) => filmReady && time >= data.film.begin - 1e-3 && time < data.film.begin + film.duration;

  // -- clock -------------------------------------------------------------------------------------------------------------

  function seek(time, keepFilm = false) {
    now = Math.min(last, Math.max(first, time));
    // Half a frame in: a player shows the picture whose time has come, and times are rounded.
    if (!keepFilm && filmReady) film.currentTime = Math.min(Math.max(0, now - data.film.begin + 0.002), film.duration || 0);
    paint();
  }

  function play(on = true) {
    if (on && now >= last - 1e-3) seek(first);
    playing = on;
    ticked = performance.now();
    $("play").textContent = on ? "Pause" : "Play";
    if (!filmReady) return;
    film.playbackRate = speed;
    if (on && filmHolds(now)) film.play().catch(() => { film.muted = true; film.play().catch(() => {}); });
    if (!on) film.pause();
  }

  function tick(stamp) {
    if (playing) {
      const passed = ((stamp - ticked) / 1000) * speed;
      // The film keeps the time while it runs, for its sound's sake; else the page's own clock does.
      const running = filmReady && !film.paused && !film.seeking && film.readyState > 2 && !film.ended;
      const counted = now + Math.min(0.5, Math.max(0, passed));
      const next = running ? filmTime() : filmReady && film.ended ? Math.max(counted, filmTime()) : counted;
      if (next >= last) {
        now = last;
        play(false);
      } else {
        seek(next, true);
      }
      paint();
    }
    ticked = stamp;
    requestAnimationFrame(tick);
  }

  function step(frames) {
    play(false);
    const i = Math.max(0, Math.min(times.length - 1, rowAt(times, now).row + frames));
    seek(times[i]);
  }

  // Every time at which there is somebody.
  const times = Float64Array.from(new Set(people.flatMap((p) => Array.from(p.times)))).sort();

  // -- view --------------------------------------------------------------------------------------------------------------

  function bounds() {
    const low = [Infinity, Infinity, Infinity], high = [-Infinity, -Infinity, -Infinity];
    for (const person of people)
      for (let i = 0; i < person.pelvis.length; i++) {
        low[i % 3] = Math.min(low[i % 3], person.pelvis[i]);
        high[i % 3] = Math.max(high[i % 3], person.pelvis[i]);
      }
    return low[0] <= high[0] ? { low, high } : { low: [0, 0, 0], high: [0, 0, 0] };
  }

  function setView(name) {
    shownView = name === "camera" ? "camera" : "orbit";
    if (name !== "camera") {
      const { low, high } = bounds();
      home = [0, 1, 2].map((i) => (low[i] + high[i]) / 2);
      const spread = Math.hypot(...[0, 1, 2].map((i) => high[i] - low[i]));
      const seen = scene ? scene.cameraAt(first).place : [0, 0, 0];
      const front = Math.atan2(seen[0] - home[0], seen[2] - home[2]);
      orbit.yaw = front + { front: 0, side: Math.PI / 2, top: 0, orbit: 0.6 }[name];
      orbit.pitch = { front: 0.05, side: 0.05, top: 1.55, orbit: 0.22 }[name];
      orbit.distance = Math.min(60, 3.2 + 0.95 * spread);
      orbit.target = home.slice();
    }
    paint();
  }

  // Turn from the clip's own view to one that can be turned, as near to it as one without roll can be.
  function leaveCamera() {
    if (shownView !== "camera") return;
    const { place } = scene.cameraAt(now);
    const target = centreAt(now), away = [0, 1, 2].map((i) => place[i] - target[i]);
    orbit.distance = Math.max(0.5, Math.hypot(...away));
    orbit.yaw = Math.atan2(away[0], away[2]);
    orbit.pitch = Math.asin(away[1] / orbit.distance);
    orbit.target = $("follow").checked ? orbit.target : target;
    shownView = "orbit";
  }

  // The middle of those who are there.
  function centreAt(time) {
    const there = people.filter((p) => p.shown && p.present(time));
    if (!there.length) return orbit.target.slice();
    const sum = [0, 0, 0];
    for (const person of there) pointBetween(person.pelvis, rowAt(person.times, time)).forEach((v, i) => (sum[i] += v / there.length));
    return sum;
  }

  function aimed() {
    if (!$("follow").checked) return orbit.target;
    const centre = centreAt(now);
    return orbit.target.map((v, i) => v + (i === 1 ? 0 : centre[i] - home[i]));
  }

  function matrices() {
    const canvas = $("scene"), aspect = Math.max(0.05, canvas.clientWidth / Math.max(1, canvas.clientHeight));
    if (shownView === "camera") return { ...scene.cameraMatrices(now, aspect), centre: centreAt(now) };
    const target = aimed(), flat = Math.cos(orbit.pitch);
    const eye = [Math.sin(orbit.yaw) * flat, Math.sin(orbit.pitch), Math.cos(orbit.yaw) * flat].map((v, i) => target[i] + orbit.distance * v);
    return { view: lookingAt(eye, target), projection: perspective(FOV, aspect, 0.03, 500), centre: target };
  }

  function orbiting(canvas) {
    const held = new Map();
    let pinch = 0;
    canvas.addEventListener("contextmenu", (e) => e.preventDefault());
    canvas.addEventListener("pointerdown", (e) => {
      held.set(e.pointerId, [e.clientX, e.clientY]);
      try { canvas.setPointerCapture(e.pointerId); } catch { /* a pointer that is gone again */ }
    });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (e) => { held.delete(e.pointerId); pinch = 0; });
    canvas.addEventListener("pointermove", (e) => {
      const from = held.get(e.pointerId);
      if (!from) return;
      const dx = e.clientX - from[0], dy = e.clientY - from[1];
      held.set(e.pointerId, [e.clientX, e.clientY]);
      leaveCamera();
      const fingers = [...held.values()];
      if (fingers.length === 2) {
        const apart = Math.hypot(fingers[0][0] - fingers[1][0], fingers[0][1] - fingers[1][1]);
        if (pinch) zoom(pinch / Math.max(1, apart));
        pinch = apart;
        pan(dx / 2, dy / 2);
      } else if (e.buttons & 2 || e.shiftKey) {
        pan(dx, dy);
      } else {
        orbit.yaw -= dx * 0.008;
        orbit.pitch = Math.min(1.56, Math.max(-1.56, orbit.pitch + dy * 0.008));
      }
      paint();
    });
    canvas.addEventListener("wheel", (e) => {
      e.preventDefault();
      leaveCamera();
      zoom(Math.exp(Math.min(1, Math.max(-1, e.deltaY * 0.0012))));
      paint();
    }, { passive: false });
    canvas.addEventListener("dblclick", () => setView("orbit"));
  }

  function zoom(factor) {
    orbit.distance = Math.min(200, Math.max(0.3, orbit.distance * factor));
  }

  function pan(dx, dy) {
    const { view } = matrices();
    const size = (2 * orbit.distance * Math.tan((FOV * Math.PI) / 360)) / Math.max(1, $("scene").clientHeight);
    for (let i = 0; i < 3; i++) orbit.target[i] += size * (-dx * view[4 * i] + dy * view[4 * i + 1]);
  }

  // -- time line ---------------------------------------------------------------------------------------------------------

  const CURVES = {
    std: { of: (p, i) => p.std[i] / 100, unit: "cm", least: 5 },
    confidence: { of: (p, i) => p.confidence[i] / 255, unit: "", least: 1 },
  };
  let drawn = null; // the curves, painted once for a size and a choice

  function curves(canvas) {
    const curve = CURVES[$("curve").value], ratio = Math.min(2, window.devicePixelRatio || 1);
    const key = [canvas.clientWidth, canvas.clientHeight, ratio, $("curve").value, ...people.map((p) => p.shown)].join();
    if (drawn && drawn.key === key) return drawn;
    const width = Math.round(canvas.clientWidth * ratio), height = Math.round(canvas.clientHeight * ratio);
    const layer = Object.assign(document.createElement("canvas"), { width, height });
    const pen = layer.getContext("2d");
    const left = 46 * ratio, right = width - 26 * ratio, base = height - (19 + 3 * Math.min(6, people.length)) * ratio, top = 10 * ratio;
    const x = (t) => left + ((t - first) / Math.max(1e-9, last - first)) * (right - left);
    let most = curve.least;
    for (const p of people) for (let i = 0; i < p.times.length; i++) most = Math.max(most, curve.of(p, i));
    const y = (v) => base - (v / most) * (base - top);
    pen.font = `${11 * ratio}px system-ui, sans-serif`;
    pen.fillStyle = "#6b6b6b";
    pen.textAlign = "right";
    pen.fillText(`${most.toFixed(most < 10 ? 1 : 0)} ${curve.unit}`, left - 5 * ratio, top + 8 * ratio);
    pen.fillText("0", left - 5 * ratio, base);
    pen.textAlign = "center";
    const every = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600].find((s) => (last - first) / s <= 14) || 1800;
    pen.strokeStyle = "#e3e3e3";
    for (let k = Math.ceil(first / every - 1e-6); k * every <= last + 1e-6; k++) {
      const at = x(k * every);
      pen.beginPath(); pen.moveTo(at, top); pen.lineTo(at, base); pen.stroke();
      pen.fillText(`${+(k * every).toFixed(1)} s`, at, height - 5 * ratio);
    }
    people.forEach((p, n) => {
      if (!p.shown) return;
      pen.strokeStyle = `rgb(${p.colour})`;
      pen.lineWidth = 1.6 * ratio;
      pen.beginPath();
      for (let i = 0; i < p.times.length; i++) pen[i ? "lineTo" : "moveTo"](x(p.times[i]), y(curve.of(p, i)));
      pen.stroke();
      // A strip below says when: full where seen, faint where filled in.
      const strip = base + (2 + 3 * n) * ratio;
      for (let i = 0; i < p.times.length; i++) {
        pen.globalAlpha = p.observed[i] ? 1 : 0.25;
        pen.fillStyle = `rgb(${p.colour})`;
        pen.fillRect(x(p.times[i]), strip, Math.max(ratio, x(p.times[i] + p.step) - x(p.times[i])), 2 * ratio);
      }
      pen.globalAlpha = 1;
    });
    return (drawn = { key, layer, x, top, base, left, right, ratio });
  }

  function paintPlot() {
    const canvas = $("plot"), made = curves(canvas), pen = canvas.getContext("2d");
    if (canvas.width !== made.layer.width || canvas.height !== made.layer.height)
      Object.assign(canvas, { width: made.layer.width, height: made.layer.height });
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.drawImage(made.layer, 0, 0);
    pen.fillStyle = "#222";
    pen.fillRect(made.x(now) - made.ratio, made.top - 4 * made.ratio, 2 * made.ratio, made.base - made.top + 4 * made.ratio);
  }

  function scrubbing(canvas) {
    const to = (e) => {
      const made = curves(canvas), x = (e.clientX - canvas.getBoundingClientRect().left) * made.ratio;
      seek(first + ((x - made.left) / (made.right - made.left)) * (last - first));
    };
    canvas.addEventListener("pointerdown", (e) => {
      play(false);
      try { canvas.setPointerCapture(e.pointerId); } catch { /* a pointer that is gone again */ }
      to(e);
    });
    canvas.addEventListener("pointermove", (e) => { if (e.buttons & 1) to(e); });
  }

  // -- painting ----------------------------------------------------------------------------------------------------------

  function paint() {
    if (scene) {
      const { view, projection, centre } = matrices();
      scene.draw(now, view, projection, centre, shownView !== "camera");
    }
    paintPlot();
    $("clock").textContent = `${now.toFixed(2)} / ${last.toFixed(2)} s`;
    people.forEach((p) => {
      const row = rowAt(p.times, now).row;
      p.told.textContent = !p.present(now) ? " not in view" : ` ± ${(p.std[row] / 100).toFixed(1)} cm${p.observed[row] ? "" : ", filled in"}`;
    });
  }

  function legend() {
    for (const person of people) {
      const label = document.createElement("label"), box = document.createElement("input"), dot = document.createElement("i");
      Object.assign(box, { type: "checkbox", checked: true });
      dot.style.background = `rgb(${person.colour})`;
      person.told = document.createElement("span");
      box.addEventListener("change", () => { person.shown = box.checked; paint(); });
      label.append(box, dot, person.name, person.told);
      $("legend").append(label);
    }
    if (!people.length) $("legend").textContent = "nobody was found";
    $("note").textContent = data.note;
  }

  // -- begin -------------------------------------------------------------------------------------------------------------

  legend();
  orbiting($("scene"));
  scrubbing($("plot"));
  $("play").addEventListener("click", () => play(!playing));
  $("back").addEventListener("click", () => step(-1));
  $("on").addEventListener("click", () => step(1));
  $("speed").addEventListener("change", () => { speed = Number($("speed").value); film.playbackRate = speed; });
  $("follow").addEventListener("change", paint);
  $("curve").addEventListener("change", paint);
  document.querySelectorAll("[data-view]").forEach((b) => b.addEventListener("click", () => scene && setView(b.dataset.view)));
  document.addEventListener("keydown", (e) => {
    if (e.target.tagName === "SELECT" || e.target.tagName === "INPUT") return;
    const actions = { " ": () => play(!playing), ArrowLeft: () => step(-1), ArrowRight: () => step(1), Home: () => seek(first), End: () => seek(last) };
    if (!actions[e.key]) return;
    e.preventDefault();
    if (e.target.blur) e.target.blur(); // space on a button would press it, too
    actions[e.key]();
  });
  window.addEventListener("resize", paint);
  new ResizeObserver(paint).observe($("scene-box"));
  setView("orbit");
  requestAnimationFrame(tick);

  window.kinflow = {
    data, scene, people, seek, play, setView, step,
    // Places of a person's 24 joints in a row of theirs, in the page's axes, m.
    jointAt: (person, row) => people[person].pose({ row, next: row, share: 0 }).joints,
    // The same as the clip's camera sees them, px of its picture.
    pixelsAt: (person, row) => {
      const [width, height] = data.camera.size;
      const { view, projection } = scene.cameraMatrices(people[person].times[row], width / height, false);
      const whole = multiplied(projection, view);
      return window.kinflow.jointAt(person, row).map((p) => {
        const q = transformed(whole, p);
        return [((q[0] / q[3] + 1) / 2) * width, ((1 - q[1] / q[3]) / 2) * height];
      });
    },
    state: () => ({ now, playing, view: shownView, orbit: { ...orbit }, film: { ready: filmReady, time: film.currentTime, width: film.videoWidth } }),
  };
})();
