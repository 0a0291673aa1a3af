// Draws points on a canvas: with WebGL, or without it by the slower 2D context.

const VERTEX = `attribute vec2 place; attribute vec4 colour; varying vec4 tint;
uniform vec2 scale; uniform vec2 shift; uniform float size;
void main() { gl_Position = vec4(place * scale + shift, 0.0, 1.0); gl_PointSize = size; tint = colour; }`;
const FRAGMENT = `precision mediump float; varying vec4 tint;
void main() {
  float edge = smoothstep(0.5, 0.35, length(gl_PointCoord - 0.5));
  gl_FragColor = vec4(tint.rgb, 1.0) * tint.a * edge;
}`;

// Returns `setPlaces(Uint16Array of x, y)`, `setColours(Uint8Array of r, g, b, a)` and `draw(view)`. A view
// has the coordinates of its `centre`, the CSS pixels of a unit `scale`, and the `size` of a point.
export function openCanvas(canvas) {
  const options = { antialias: false, premultipliedAlpha: true, preserveDrawingBuffer: true };
  const gl = canvas.getContext("webgl", options);
  return gl ? openWebgl(canvas, gl) : openPlain(canvas, canvas.getContext("2d"));
}

function openWebgl(canvas, gl) {
  const program = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  gl.useProgram(program);
  gl.enable(gl.BLEND);
  gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  const uniform = (name) => gl.getUniformLocation(program, name);
  const [scale, shift, size] = ["scale", "shift", "size"].map(uniform);
  let total = 0;
  const fill = (buffer, name, values, width, type) => {
    const slot = gl.getAttribLocation(program, name);
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
    gl.enableVertexAttribArray(slot);
    gl.vertexAttribPointer(slot, width, type, name === "colour", 0, 0);
  };
  const [places, colours] = [gl.createBuffer(), gl.createBuffer()];
  return {
    renderer: "webgl",
    setPlaces(values) {
      total = values.length / 2;
      fill(places, "place", values, 2, gl.UNSIGNED_SHORT);
    },
    setColours(values) {
      fill(colours, "colour", values, 4, gl.UNSIGNED_BYTE);
    },
    draw(view) {
      const { width, height } = fit(canvas);
      gl.viewport(0, 0, canvas.width, canvas.height);
      gl.clearColor(0, 0, 0, 0);
      gl.clear(gl.COLOR_BUFFER_BIT);
      const [sx, sy] = [2 * view.scale / width, 2 * view.scale / height];
      gl.uniform2f(scale, sx, sy);
      gl.uniform2f(shift, -view.centre[0] * sx, -view.centre[1] * sy);
      gl.uniform1f(size, view.size * devicePixelRatio);
      if (total) gl.drawArrays(gl.POINTS, 0, total);
    },
  };
}

function openPlain(canvas, context) {
  let [places, colours] = [new Uint16Array(), new Uint8Array()];
  return {
    renderer: "2d",
    setPlaces(values) {
      places = values;
    },
    setColours(values) {
      colours = values;
    },
    draw(view) {
      const { width, height } = fit(canvas);
      context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
      context.clearRect(0, 0, width, height);
      for (let i = 0; i < places.length / 2; i += 1) {
        const x = width / 2 + (places[2 * i] - view.centre[0]) * view.scale;
        const y = height / 2 - (places[2 * i + 1] - view.centre[1]) * view.scale;
        if (x < 0 || y < 0 || x > width || y > height) continue;
        const [r, g, b, a] = colours.subarray(4 * i, 4 * i + 4);
        context.fillStyle = `rgb(${r} ${g} ${b} / ${a / 255})`;
        context.fillRect(x - view.size / 2, y - view.size / 2, view.size, view.size);
      }
    },
  };
}

// Gives the canvas the resolution of the screen.
export function fit(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas;
  const [w, h] = [Math.round(width * devicePixelRatio), Math.round(height * devicePixelRatio)];
  if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, { width: w, height: h });
  return { width, height };
}
