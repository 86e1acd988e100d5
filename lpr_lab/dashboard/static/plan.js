// The plan's steppers: counts change here at once and are written into the address; Python reckons what they cost.
// Listens once for all: pages change the plan in place, so its layers are looked up when something happens.
(function () {
  "use strict";
  const PAUSE_MS = 250;
  const words = (count) => (count === 0 ? "no new expert" : count === 1 ? "1 new expert" : count + " new experts");
  const layersOf = (root) => [...root.querySelectorAll("[role=spinbutton]")];
  const count = (layer) => Number(layer.getAttribute("aria-valuenow"));
  let waiting = null; // counts that Python was not told of yet: { root, counts, timer }

  function write(layer, value) {
    layer.setAttribute("aria-valuenow", value);
    layer.setAttribute("aria-valuetext", words(value) + layer.dataset.alike);
    layer.querySelector("b").textContent = value;
  }
  function draw(layers) {
    const top = Math.max(1, ...layers.map(count));
    for (const layer of layers) layer.querySelector("i").style.height = (100 * count(layer)) / top + "%";
  }
  function set(root, layer, wanted) {
    const value = Math.min(Number(root.dataset.most), Math.max(0, wanted));
    if (value === count(layer)) return;
    const layers = layersOf(root);
    write(layer, value);
    draw(layers);
    clearTimeout(waiting?.timer);
    const counts = layers.map(count);
    waiting = { root, counts, timer: setTimeout(tell, PAUSE_MS) };
  }
  function tell() {
    const { root, counts } = waiting;
    waiting = null;
    root.dispatchEvent(new CustomEvent("lpr:plan", { bubbles: true, detail: counts.join(",") }));
  }
  // Python's answer to an earlier step must not undo those that were taken since.
  window.lprPlan = function (root) {
    const layers = layersOf(root);
    if (waiting?.root !== root || waiting.counts.length !== layers.length) return;
    layers.forEach((layer, at) => write(layer, waiting.counts[at]));
    draw(layers);
  };

  function focus(root, layer) {
    for (const other of layersOf(root)) other.tabIndex = other === layer ? 0 : -1;
    layer.focus();
  }
  document.addEventListener("keydown", (event) => {
    const root = event.target.closest?.(".lpr-plan");
    if (!root || event.ctrlKey || event.metaKey || event.altKey) return;
    const layers = layersOf(root);
    const at = layers.indexOf(event.target);
    if (at < 0) return;
    const layer = layers[at];
    if (event.key === "ArrowUp") set(root, layer, count(layer) + 1);
    else if (event.key === "ArrowDown") set(root, layer, count(layer) - 1);
    else if (event.key === "PageUp") set(root, layer, count(layer) + 5);
    else if (event.key === "PageDown") set(root, layer, count(layer) - 5);
    else if (event.key === "Home") set(root, layer, 0);
    else if (event.key === "ArrowRight") focus(root, layers[Math.min(at + 1, layers.length - 1)]);
    else if (event.key === "ArrowLeft") focus(root, layers[Math.max(at - 1, 0)]);
    else if (/^[0-9]$/.test(event.key)) set(root, layer, Number(event.key));
    else return;
    event.preventDefault();
  });
  document.addEventListener("click", (event) => {
    const root = event.target.closest?.(".lpr-plan");
    const layer = root && event.target.closest(".lpr-plan-layer")?.querySelector("[role=spinbutton]");
    if (!layer) return;
    const step = event.target.closest("[data-step]");
    if (step) set(root, layer, count(layer) + Number(step.dataset.step));
    else focus(root, layer);
  });
})();
