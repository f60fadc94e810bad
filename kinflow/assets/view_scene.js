// People in 3D: what kinflow wrote into the page, unpacked, posed and drawn with WebGL 2. Axes: x right, y up, metres.

function unpack(text, Kind) {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return new Kind(bytes.buffer);
}

// -- matrices, column by column as WebGL takes them ----------------------------------------------------------------------

function multiplied(a, b) {
  const out = new Float32Array(16);
  for (let c = 0; c < 4; c++)
    for (let r = 0; r < 4; r++) {
      let sum = 0;
      for (let k = 0; k < 4; k++) sum += a[4 * k + r] * b[4 * c + k];
      out[4 * c + r] = sum;
    }
  return out;
}

function transformed(m, p) {
  const out = [0, 0, 0, 0];
  for (let r = 0; r < 4; r++) out[r] = m[r] * p[0] + m[4 + r] * p[1] + m[8 + r] * p[2] + m[12 + r];
  return out;
}

function perspective(fovDegrees, aspect, near, far) {
  const f = 1 / Math.tan((fovDegrees * Math.PI) / 360);
  const wide = Math.min(1, aspect); // in a tall canvas the angle is that across
  return new Float32Array([
    (f * wide) / aspect, 0, 0, 0, 0, f * wide, 0, 0,
    0, 0, (far + near) / (near - far), -1, 0, 0, (2 * far * near) / (near - far), 0,
  ]);
}

function lookingAt(eye, target) {
  const z = unit([eye[0] - target[0], eye[1] - target[1], eye[2] - target[2]]);
  const x = unit(cross([0, 1, 0], z));
  const y = cross(z, x);
  const dot = (a) => -(a[0] * eye[0] + a[1] * eye[1] + a[2] * eye[2]);
  return new Float32Array([x[0], y[0], z[0], 0, x[1], y[1], z[1], 0, x[2], y[2], z[2], 0, dot(x), dot(y), dot(z), 1]);
}

function unit(a) {
  const n = Math.hypot(a[0], a[1], a[2]) || 1;
  return [a[0] / n, a[1] / n, a[2] / n];
}

function cross(a, b) {
  return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
}

// Rotation matrix, nine numbers row by row, of a quaternion with the real part first.
function turnOf(q) {
  const n = Math.hypot(q[0], q[1], q[2], q[3]) || 1;
  const w = q[0] / n, x = q[1] / n, y = q[2] / n, z = q[3] / n;
  return [
    1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
    2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
    2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
  ];
}

function turned(R, p) {
  return [
    R[0] * p[0] + R[1] * p[1] + R[2] * p[2], R[3] * p[0] + R[4] * p[1] + R[5] * p[2], R[6] * p[0] + R[7] * p[1] + R[8] * p[2],
  ];
}

// -- values over time ----------------------------------------------------------------------------------------------------

// The row at a time or before it, and how far the time is towards the next.
function rowAt(times, time) {
  let low = 0, high = times.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (times[middle] <= time + 1e-6) low = middle; else high = middle - 1;
  }
  const next = Math.min(low + 1, times.length - 1);
  const gap = times[next] - times[low];
  const share = gap > 0 ? Math.min(1, Math.max(0, (time - times[low]) / gap)) : 0;
  return { row: low, next, share: share < 1e-3 ? 0 : share };
}

// Between two quaternions of an array of int16; neighbours were written in one half of the sphere.
function quaternionBetween(values, width, at, offset) {
  const a = at.row * width + offset, b = at.next * width + offset, s = at.share, q = [0, 0, 0, 0];
  for (let i = 0; i < 4; i++) q[i] = (values[a + i] * (1 - s) + values[b + i] * s) / 32767;
  return q;
}

function pointBetween(values, at) {
  const p = [0, 0, 0];
  for (let i = 0; i < 3; i++) p[i] = values[3 * at.row + i] * (1 - at.share) + values[3 * at.next + i] * at.share;
  return p;
}

class Person {
  constructor(told, parents) {
    Object.assign(this, { name: told.name, colour: told.colour, parents, shown: true });
    this.times = unpack(told.times, Float32Array);
    this.quaternions = unpack(told.quaternions, Int16Array); // T x 24 x 4
    this.pelvis = unpack(told.pelvis, Float32Array); // T x 3
    this.offsets = unpack(told.offsets, Float32Array); // 24 x 3, each joint from its parent at rest
    this.observed = unpack(told.observed, Uint8Array);
    this.std = unpack(told.std, Uint16Array); // tenths of a millimetre
    this.confidence = unpack(told.confidence, Uint8Array); // of 255
    this.low = told.low;
    this.extent = told.extent;
    this.positions = unpack(told.positions, Uint16Array); // V x 3, shares of the extent
    this.normals = unpack(told.normals, Int8Array);
    this.rest = [];
    for (let j = 0; j < parents.length; j++) {
      const from = parents[j] < 0 ? [0, 0, 0] : this.rest[parents[j]];
      this.rest.push([0, 1, 2].map((i) => from[i] + this.offsets[3 * j + i]));
    }
    this.step = this.times.length > 1 ? (this.times[this.times.length - 1] - this.times[0]) / (this.times.length - 1) : 1;
    this.skin = new Float32Array(16 * parents.length);
  }

  present(time) {
    return this.times.length > 0 && time >= this.times[0] - 1e-4 && time < this.times[this.times.length - 1] + this.step;
  }

  // Places of the joints and rotations of their frames: forward kinematics.
  pose(at) {
    const joints = [], turns = [];
    for (let j = 0; j < this.parents.length; j++) {
      const own = turnOf(quaternionBetween(this.quaternions, 4 * this.parents.length, at, 4 * j));
      const parent = this.parents[j];
      if (parent < 0) {
        turns.push(own);
        joints.push(pointBetween(this.pelvis, at));
        continue;
      }
      const P = turns[parent], R = new Array(9);
      for (let r = 0; r < 3; r++)
        for (let c = 0; c < 3; c++) R[3 * r + c] = P[3 * r] * own[c] + P[3 * r + 1] * own[3 + c] + P[3 * r + 2] * own[6 + c];
      const away = turned(P, this.offsets.subarray(3 * j, 3 * j + 3));
      turns.push(R);
      joints.push([0, 1, 2].map((i) => joints[parent][i] + away[i]));
    }
    return { joints, turns };
  }

  // Matrices that carry vertices at rest to where they are, for the shader.
  skinned(at) {
    const { joints, turns } = this.pose(at);
    for (let j = 0; j < joints.length; j++) {
      const R = turns[j], away = turned(R, this.rest[j]);
      const column = (c) => [R[c], R[3 + c], R[6 + c], 0];
      const place = [0, 1, 2].map((i) => joints[j][i] - away[i]);
      this.skin.set([...column(0), ...column(1), ...column(2), ...place, 1], 16 * j);
    }
    return this.skin;
  }
}

// -- drawing -------------------------------------------------------------------------------------------------------------

const BODY_VERTEX = `#version 300 es
layout(location = 0) in vec3 position;
layout(location = 1) in vec3 normal;
layout(location = 2) in uvec4 joints;
layout(location = 3) in vec4 weights;
uniform mat4 skin[24];
uniform mat4 view_projection;
uniform vec3 low, extent;
uniform float ground; // where a shadow is cast to, for the shadow's pass
uniform bool flat_on_ground;
out vec3 facing;
void main() {
  vec4 w = weights / (weights.x + weights.y + weights.z + weights.w);
  mat4 m = w.x * skin[joints.x] + w.y * skin[joints.y] + w.z * skin[joints.z] + w.w * skin[joints.w];
  vec4 place = m * vec4(low + extent * position, 1.0);
  if (flat_on_ground) place.y = ground + 0.002;
  facing = mat3(m) * normal;
  gl_Position = view_projection * vec4(place.xyz, 1.0);
}`;

const BODY_FRAGMENT = `#version 300 es
precision highp float;
in vec3 facing;
uniform vec3 colour, lamp;
uniform float light; // 0: plain colour
out vec4 shade;
void main() {
  vec3 n = normalize(facing);
  float lit = 0.45 * (0.75 + 0.25 * n.y) + 0.65 * max(dot(n, lamp), 0.0) + 0.12 * max(n.y, 0.0);
  shade = vec4(mix(colour, colour * lit, light), 1.0);
}`;

const GROUND_VERTEX = `#version 300 es
layout(location = 0) in vec2 corner;
uniform mat4 view_projection;
uniform vec3 middle;
uniform float reach;
out vec2 place;
void main() {
  place = middle.xz + reach * corner;
  gl_Position = view_projection * vec4(place.x, middle.y, place.y, 1.0);
}`;

const GROUND_FRAGMENT = `#version 300 es
precision highp float;
in vec2 place;
uniform vec3 middle;
uniform float reach;
out vec4 shade;
float lines(vec2 p) {
  vec2 wide = max(fwidth(p), 1e-5);
  vec2 near = abs(fract(p - 0.5) - 0.5) / wide;
  vec2 cover = (1.0 - clamp(near - 0.3, 0.0, 1.0)) * (1.0 - clamp(2.5 * wide - 0.5, 0.0, 1.0));
  return max(cover.x, cover.y);
}
void main() {
  float ink = max(0.3 * lines(2.0 * place), 0.65 * lines(place));
  float fade = 1.0 - smoothstep(0.35, 1.0, length(place - middle.xz) / reach);
  shade = vec4(vec3(0.62), ink * fade);
}`;

const LINE_VERTEX = `#version 300 es
layout(location = 0) in vec3 position;
uniform mat4 view_projection;
void main() { gl_Position = view_projection * vec4(position, 1.0); }`;

const LINE_FRAGMENT = `#version 300 es
precision highp float;
uniform vec4 colour;
out vec4 shade;
void main() { shade = colour; }`;

class Scene {
  constructor(canvas, data) {
    this.canvas = canvas;
    this.ground = data.ground;
    this.people = data.people.map((p) => new Person(p, data.parents));
    const seen = data.camera;
    this.camera = {
      K: seen.K, size: seen.size, times: unpack(seen.times, Float32Array), places: unpack(seen.places, Float32Array),
      quaternions: unpack(seen.quaternions, Int16Array),
    };
    const gl = canvas.getContext("webgl2", { antialias: true, alpha: false, preserveDrawingBuffer: true });
    if (!gl) throw new Error("This browser shows no WebGL 2, which the 3D view needs.");
    this.gl = gl;
    this.body = this.program(BODY_VERTEX, BODY_FRAGMENT);
    this.plane = this.program(GROUND_VERTEX, GROUND_FRAGMENT);
    this.line = this.program(LINE_VERTEX, LINE_FRAGMENT);
    this.loadMeshes(unpack(data.faces, Uint16Array), unpack(data.joints, Uint8Array), unpack(data.weights, Uint8Array));
    this.square = gl.createVertexArray();
    gl.bindVertexArray(this.square);
    this.buffer(gl.ARRAY_BUFFER, new Float32Array([-1, -1, 1, -1, -1, 1, 1, 1]));
    gl.enableVertexAttribArray(0);
    gl.vertexAttribPointer(0, 2, gl.FLOAT, false, 0, 0);
    this.strokes = gl.createVertexArray();
    gl.bindVertexArray(this.strokes);
    this.strokeBuffer = this.buffer(gl.ARRAY_BUFFER, new Float32Array(3));
    gl.enableVertexAttribArray(0);
    gl.vertexAttribPointer(0, 3, gl.FLOAT, false, 0, 0);
    gl.bindVertexArray(null);
  }

  program(vertex, fragment) {
    const gl = this.gl, program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program));
    const at = {};
    for (let i = 0; i < gl.getProgramParameter(program, gl.ACTIVE_UNIFORMS); i++) {
      const name = gl.getActiveUniform(program, i).name.replace("[0]", "");
      at[name] = gl.getUniformLocation(program, name);
    }
    return { program, at };
  }

  buffer(target, values) {
    const gl = this.gl, buffer = gl.createBuffer();
    gl.bindBuffer(target, buffer);
    gl.bufferData(target, values, gl.STATIC_DRAW);
    return buffer;
  }

  loadMeshes(faces, joints, weights) {
    const gl = this.gl;
    this.count = faces.length;
    for (const person of this.people) {
      person.mesh = gl.createVertexArray();
      gl.bindVertexArray(person.mesh);
      this.buffer(gl.ARRAY_BUFFER, person.positions);
      gl.vertexAttribPointer(0, 3, gl.UNSIGNED_SHORT, true, 0, 0);
      this.buffer(gl.ARRAY_BUFFER, person.normals);
      gl.vertexAttribPointer(1, 3, gl.BYTE, true, 0, 0);
      this.buffer(gl.ARRAY_BUFFER, joints);
      gl.vertexAttribIPointer(2, 4, gl.UNSIGNED_BYTE, 0, 0);
      this.buffer(gl.ARRAY_BUFFER, weights);
      gl.vertexAttribPointer(3, 4, gl.UNSIGNED_BYTE, true, 0, 0);
      for (let i = 0; i < 4; i++) gl.enableVertexAttribArray(i);
      this.buffer(gl.ELEMENT_ARRAY_BUFFER, faces);
    }
  }

  // Where the clip's camera is at a time: place and rotation from camera axes (x right, y down, z forward).
  cameraAt(time) {
    const at = rowAt(this.camera.times, time);
    return { place: pointBetween(this.camera.places, at), turn: turnOf(quaternionBetween(this.camera.quaternions, 4, at, 0)) };
  }

  // View and projection of the clip's camera, its whole picture inside the canvas; with `fit` off, just its picture.
  cameraMatrices(time, aspect, fit = true) {
    const { place, turn: R } = this.cameraAt(time);
    const rows = [[R[0], R[3], R[6]], [-R[1], -R[4], -R[7]], [-R[2], -R[5], -R[8]]];
    const shift = rows.map((r) => -(r[0] * place[0] + r[1] * place[1] + r[2] * place[2]));
    const view = new Float32Array(16);
    rows.forEach((r, i) => { view[i] = r[0]; view[4 + i] = r[1]; view[8 + i] = r[2]; view[12 + i] = shift[i]; });
    view[15] = 1;
    const K = this.camera.K, [width, height] = this.camera.size;
    const picture = width / height, near = 0.05, far = 500;
    const sx = fit && aspect > picture ? picture / aspect : 1, sy = fit && aspect < picture ? aspect / picture : 1;
    const projection = new Float32Array([
      (2 * K[0][0] * sx) / width, 0, 0, 0, (-2 * K[0][1] * sx) / width, (2 * K[1][1] * sy) / height, 0, 0,
      sx * (1 - (2 * K[0][2]) / width), sy * ((2 * K[1][2]) / height - 1), (far + near) / (near - far), -1,
      0, 0, (2 * far * near) / (near - far), 0,
    ]);
    return { view, projection };
  }

  draw(time, view, projection, centre, showCamera) {
    const gl = this.gl, canvas = this.canvas;
    const ratio = Math.min(2, window.devicePixelRatio || 1);
    const width = Math.max(1, Math.round(canvas.clientWidth * ratio)), height = Math.max(1, Math.round(canvas.clientHeight * ratio));
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    gl.viewport(0, 0, width, height);
    gl.clearColor(0.969, 0.969, 0.969, 1);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.enable(gl.DEPTH_TEST);
    const whole = multiplied(projection, view);
    // The lamp stands behind the viewer's left shoulder, as in the overlay.
    const lamp = unit([0, 4, 8].map((c) => -0.4 * view[c] + 0.7 * view[c + 1] + 0.6 * view[c + 2]));
    this.drawGround(whole, centre);
    gl.useProgram(this.body.program);
    gl.uniformMatrix4fv(this.body.at.view_projection, false, whole);
    gl.uniform3fv(this.body.at.lamp, lamp);
    gl.uniform1f(this.body.at.ground, this.ground.height);
    for (const person of this.people) {
      if (!person.shown || !person.present(time)) continue;
      gl.bindVertexArray(person.mesh);
      gl.uniformMatrix4fv(this.body.at.skin, false, person.skinned(rowAt(person.times, time)));
      gl.uniform3fv(this.body.at.low, person.low);
      gl.uniform3fv(this.body.at.extent, person.extent);
      gl.uniform1i(this.body.at.flat_on_ground, 1);
      gl.uniform1f(this.body.at.light, 0);
      gl.uniform3f(this.body.at.colour, 0.8, 0.8, 0.8);
      gl.drawElements(gl.TRIANGLES, this.count, gl.UNSIGNED_SHORT, 0);
      gl.uniform1i(this.body.at.flat_on_ground, 0);
      gl.uniform1f(this.body.at.light, 1);
      const faint = person.observed[rowAt(person.times, time).row] ? 0 : 0.45; // filled in: paler
      gl.uniform3fv(this.body.at.colour, person.colour.map((c) => (c / 255) * (1 - faint) + faint));
      gl.drawElements(gl.TRIANGLES, this.count, gl.UNSIGNED_SHORT, 0);
    }
    if (showCamera) this.drawCamera(whole, time);
    gl.bindVertexArray(null);
  }

  drawGround(whole, centre) {
    const gl = this.gl;
    gl.useProgram(this.plane.program);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA);
    gl.depthMask(false);
    gl.uniformMatrix4fv(this.plane.at.view_projection, false, whole);
    gl.uniform3f(this.plane.at.middle, centre[0], this.ground.height, centre[2]);
    gl.uniform1f(this.plane.at.reach, 25);
    gl.bindVertexArray(this.square);
    gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
    gl.depthMask(true);
    gl.disable(gl.BLEND);
  }

  // The camera as a pyramid, and the path that it took.
  drawCamera(whole, time) {
    const gl = this.gl, { place, turn } = this.cameraAt(time);
    const K = this.camera.K, [width, height] = this.camera.size, depth = 0.35;
    const corners = [[0, 0], [width, 0], [width, height], [0, height]].map(([u, v]) => {
      const ray = turned(turn, [((u - K[0][2]) / K[0][0]) * depth, ((v - K[1][2]) / K[1][1]) * depth, depth]);
      return [0, 1, 2].map((i) => place[i] + ray[i]);
    });
    const points = [];
    for (let i = 0; i < 4; i++) points.push(...place, ...corners[i], ...corners[i], ...corners[(i + 1) % 4]);
    const path = this.camera.places;
    for (let i = 3; i + 2 < path.length; i += 3) points.push(...path.subarray(i - 3, i + 3));
    gl.useProgram(this.line.program);
    gl.uniformMatrix4fv(this.line.at.view_projection, false, whole);
    gl.uniform4f(this.line.at.colour, 0.25, 0.25, 0.25, 1);
    gl.bindVertexArray(this.strokes);
    gl.bindBuffer(gl.ARRAY_BUFFER, this.strokeBuffer);
    gl.bufferData(gl.ARRAY_BUFFER, new Float32Array(points), gl.DYNAMIC_DRAW);
    gl.drawArrays(gl.LINES, 0, points.length / 3);
  }
}
