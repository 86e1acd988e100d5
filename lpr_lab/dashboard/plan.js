// The plan's steppers: counts change here at once and are written into the address; Python reckons what they cost.
(function () {
  "use strict";
  const PAUSE_MS = 250;
  const words = (count) => (count === 0 ? "no new expert" : count === 1 ? "1 new expert" : count + " new experts");

  window.lprPlan = function (root, changed) {
    if (root.dataset.lprReady) return;
    root.dataset.lprReady = "1";
    const most = Number(root.dataset.most);
    const layers = [...root.querySelectorAll("[role=spinbutton]")];
    const count = (layer) => Number(layer.getAttribute("aria-valuenow"));
    let timer = 0;

    function draw() {
      const top = Math.max(1, ...layers.map(count));
      for (const layer of layers) layer.querySelector("i").style.height = (100 * count(layer)) / top + "%";
    }
    function set(layer, value) {
      value = Math.min(most, Math.max(0, value));
      if (value === count(layer)) return;
      layer.setAttribute("aria-valuenow", value);
      layer.setAttribute("aria-valuetext", words(value) + layer.dataset.alike);
      layer.querySelector("b").textContent = value;
      draw();
      clearTimeout(timer);
      timer = setTimeout(() => changed(layers.map(count).join(",")), PAUSE_MS);
    }
    function focus(layer) {
      for (const other of layers) other.tabIndex = other === layer ? 0 : -1;
      layer.focus();
    }
    root.addEventListener("keydown", (event) => {
      const at = layers.indexOf(event.target);
      if (at < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
      const layer = layers[at];
      if (event.key === "ArrowUp") set(layer, count(layer) + 1);
      else if (event.key === "ArrowDown") set(layer, count(layer) - 1);
      else if (event.key === "PageUp") set(layer, count(layer) + 5);
      else if (event.key === "PageDown") set(layer, count(layer) - 5);
      else if (event.key === "Home") set(layer, 0);
      else if (event.key === "ArrowRight") focus(layers[Math.min(at + 1, layers.length - 1)]);
      else if (event.key === "ArrowLeft") focus(layers[Math.max(at - 1, 0)]);
      else if (/^[0-9]$/.test(event.key)) set(layer, Number(event.key));
      else return;
      event.preventDefault();
    });
    root.addEventListener("click", (event) => {
      const step = event.target.closest("[data-step]");
      const layer = event.target.closest(".lpr-plan-layer")?.querySelector("[role=spinbutton]");
      if (step) set(layer, count(layer) + Number(step.dataset.step));
      else if (layer) focus(layer);
      event.stopPropagation();
    });
  };
})();
