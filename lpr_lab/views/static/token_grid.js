// The table of layers and experts below a token strip: its cells pick out tokens, and one token's way stands beside it.
window.lprTokenGrid = function (strip, numbers, state, percent) {
  "use strict";
  const table = strip.querySelector(".lpr-grid");
  if (!table) return { draw() {}, move: () => false, spark: () => null };
  const { layers, experts } = numbers;
  const cell = (layer, expert) => table.querySelector(`button[data-l="${layer}"][data-e="${expert}"]`);
  const rows = [...table.tBodies[0].rows];
  const whose = table.querySelector(".lpr-whose");

  // The two likeliest experts of a token in a layer, by router probability.
  function way(row, token) {
    const list = numbers.probs(row, token);
    const order = list.map((p, e) => [e, p]).sort((a, b) => b[1] - a[1]);
    const [[first, p], [second, q] = [null, 0]] = order;
    return [String(first), percent(p), second === null ? "–" : String(second), second === null ? "–" : percent(q), percent(p - q)];
  }
  function draw(token, name) {
    whose.textContent = token === null ? "One token: point at it" : `Token ${token + 1}, “${name}”`;
    rows.forEach((line, place) => {
      const row = place === 0 ? null : place - 1;
      line.classList.toggle("lpr-current", (row === null ? null : layers[row]) === state.layer);
      const texts = token === null ? Array(5).fill("–") : way(row, token);
      const places = [...line.cells].slice(-5);
      places.forEach((box, i) => (box.textContent = texts[i]));
      const went = token === null || row === null ? -1 : numbers.first(row, token);
      for (const button of line.querySelectorAll("button")) button.classList.toggle("lpr-went", Number(button.dataset.e) === went);
    });
    const here = state.expert === null ? null : cell(state.layer, state.expert);
    const buttons = table.querySelectorAll("button");
    const stop = here || table.querySelector("button:focus") || buttons[0];
    for (const button of buttons) {
      button.tabIndex = button === stop ? 0 : -1;
      button.setAttribute("aria-pressed", String(button === here));
    }
  }
  // Move the tab stop from one cell to another; whether the key was one of ours.
  function move(button, key) {
    const row = layers.indexOf(Number(button.dataset.l));
    const expert = Number(button.dataset.e);
    const by = { ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1], Home: [-row, 0], End: [layers.length, 0] }[key];
    if (!by) return false;
    const next = Math.min(Math.max(row + by[0], 0), layers.length - 1);
    const target = cell(layers[next], Math.min(Math.max(expert + by[1], 0), experts[next] - 1));
    button.tabIndex = -1;
    target.tabIndex = 0;
    target.focus();
    return true;
  }

  // Router probability of the original expert over depth, as a line with the same in words.
  function spark(token) {
    const values = layers.map((_, row) => numbers.probs(row, token)[0]);
    const holder = document.createElement("div");
    holder.innerHTML = "<svg></svg>"; // parsed, so that nobody has to write the namespace, which looks like an address
    const box = holder.firstChild;
    const make = (name, attributes) => {
      const element = document.createElementNS(box.namespaceURI, name);
      for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
      box.append(element);
    };
    const x = (i) => 3 + (94 * i) / Math.max(values.length - 1, 1);
    const y = (v) => 21 - 18 * v;
    box.setAttribute("viewBox", "0 0 100 24");
    box.setAttribute("preserveAspectRatio", "none");
    box.setAttribute("class", "lpr-spark");
    box.setAttribute("role", "img");
    const low = values.indexOf(Math.min(...values));
    const ends = `${percent(values[0])} in layer ${layers[0]}, ${percent(values.at(-1))} in layer ${layers.at(-1)}`;
    box.setAttribute("aria-label", `Probability of the original expert over the layers: ${ends}, lowest ${percent(values[low])} in layer ${layers[low]}`);
    make("line", { x1: 3, x2: 97, y1: y(0.5), y2: y(0.5), class: "lpr-half" });
    make("polyline", { points: values.map((v, i) => `${x(i).toFixed(2)},${y(v).toFixed(2)}`).join(" ") });
    if (state.layer !== null) {
      const i = layers.indexOf(state.layer);
      make("line", { x1: x(i), x2: x(i), y1: 1, y2: 23, class: "lpr-here" });
    }
    return box;
  }
  return { draw, move, spark };
};
