// The causal map: draws the cells of one expert at a time, lets a reader walk over them, and asks Python about one cell.
// What is chosen stands in the section's data attributes. Listens once per page for all maps, also those drawn later.
// Text is only ever written with textContent. A chosen cell is asked about by a bubbling `lpr:ask` event.
if (!window.lprCausal) {
  (function () {
    "use strict";
    const drawn = new WeakMap();
    const { unpack, make } = window.lprCells;
    const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(2);

    // Draw a map, unless it stands there already as its attributes say.
    window.lprCausal = function (box) {
      const grid = box.querySelector(".lpr-causal-grid");
      const known = drawn.get(box);
      if (known?.map === box.dataset.map && grid.tBodies[0].rows.length) return known;
      const data = JSON.parse(box.dataset.map);
      const view = { map: box.dataset.map, box, grid, data, bits: unpack(data.bits) };
      view.experts = Object.fromEntries(
        Object.entries(data.experts).map(([e, one]) => [e, { ...one, change: unpack(one.change), total: unpack(one.total) }]),
      );
      drawn.set(box, view);
      drawHead(view);
      drawCells(view);
      return view;
    };
    const of = (element) => {
      const box = element?.closest?.(".lpr-causal");
      return box ? window.lprCausal(box) : null;
    };
    const expertOf = (view) => (view.box.dataset.expert in view.experts ? view.box.dataset.expert : Object.keys(view.experts)[0]);

    function drawHead(view) {
      const line = make("tr");
      line.append(make("th", "Token", { scope: "col" }), make("th", "Bits", { scope: "col", title: "as it is" }));
      for (const layer of view.data.layers) line.append(make("th", String(layer), { scope: "col", "aria-label": "layer " + layer }));
      view.grid.tHead.replaceChildren(line);
    }
    function drawCells(view) {
      const { data } = view;
      const one = view.experts[expertOf(view)];
      const width = data.layers.length;
      const rows = document.createDocumentFragment();
      const most = Math.max(...[...one.total].filter(Number.isFinite).map(Math.abs), one.limit);
      const total = view.bits.reduce((sum, value) => sum + value, 0);
      rows.append(drawRow(view, -1, "whole text", total, [...one.total], most));
      data.tokens.forEach((label, i) => rows.append(drawRow(view, i, label, view.bits[i], [...one.change.subarray(i * width, (i + 1) * width)], one.limit)));
      view.grid.tBodies[0].replaceChildren(rows);
      const [layer, token] = view.box.dataset.cell.split(".").map(Number);
      const chosen = view.box.dataset.cell ? cellAt(view, data.layers.indexOf(layer), token - 1) : null;
      chosen?.setAttribute("aria-selected", "true");
      const stop = chosen ?? cellAt(view, 0, -1);
      stop.tabIndex = 0;
      if (chosen) {
        const around = view.grid.parentElement;
        around.scrollTop = chosen.offsetTop - around.clientHeight / 2;
        say(view, chosen);
      }
    }
    function drawRow(view, token, label, bits, values, limit) {
      const line = make("tr", "", token < 0 ? { class: "lpr-causal-total" } : {});
      const head = make("th", "", { scope: "row" });
      if (token >= 0) head.append(make("small", String(token + 2)), " ");
      head.append(make("bdi", label));
      line.append(head, make("td", bits.toFixed(1), { class: "lpr-causal-bits" }));
      values.forEach((value, place) => {
        const strength = Number.isFinite(value) ? Math.min(Math.abs(value) / limit, 1) : 0;
        const kind = !Number.isFinite(value) ? "lpr-causal-none" : value >= 0 ? "lpr-causal-up" : "lpr-causal-down";
        const where = `layer ${view.data.layers[place]}, ${token < 0 ? "whole text" : `token ${token + 2} “${label}”`}`;
        const said = Number.isFinite(value) ? `${signed(value)} bits` : "does not have this expert";
        const cell = make("td", strength >= 0.4 ? (value < 0 ? "−" : "+") : "", {
          class: kind, tabindex: "-1", "data-p": place, "data-t": token, "aria-label": `${where}: ${said}`, style: `--a:${strength.toFixed(3)}`,
        });
        line.append(cell);
      });
      return line;
    }
    const cellAt = (view, place, token) => view.grid.querySelector(`td[data-p="${place}"][data-t="${token}"]`);
    function say(view, cell) {
      const token = Number(cell.dataset.t);
      const words = cell.getAttribute("aria-label");
      const now = token < 0 ? "" : ` (${view.bits[token].toFixed(2)} as it is)`;
      view.box.querySelector(".lpr-causal-here").textContent = words[0].toUpperCase() + words.slice(1) + now + ".";
    }
    function go(view, cell, key) {
      const last = [view.data.layers.length - 1, view.data.tokens.length - 1];
      const place = window.lprCells.step([Number(cell.dataset.p), Number(cell.dataset.t)], key, last, -1);
      if (!place) return false;
      window.lprCells.focus(cell, cellAt(view, ...place));
      return true;
    }
    function ask(view, cell) {
      const token = Number(cell.dataset.t);
      if (token < 0 || cell.classList.contains("lpr-causal-none")) return;
      const layer = view.data.layers[Number(cell.dataset.p)];
      for (const other of view.grid.querySelectorAll("[aria-selected=true], td[tabindex='0']")) {
        other.removeAttribute("aria-selected");
        other.tabIndex = -1;
      }
      cell.setAttribute("aria-selected", "true");
      cell.tabIndex = 0;
      view.box.dataset.cell = `${layer}.${token + 1}`;
      tell(view, "lpr:ask");
    }
    // The address of what is shown, for whoever listens.
    function tell(view, name) {
      const query = new URLSearchParams(location.search);
      query.set("cause", [expertOf(view), view.box.dataset.cell].filter(Boolean).join("."));
      view.box.dispatchEvent(new CustomEvent(name, { bubbles: true, detail: query.toString().replaceAll("%2C", ",") }));
    }

    document.addEventListener("click", (event) => {
      const cell = event.target.closest?.(".lpr-causal-grid td[data-p]");
      if (cell) ask(of(cell), cell);
    });
    document.addEventListener("keydown", (event) => {
      const cell = event.target.closest?.(".lpr-causal-grid td[data-p]");
      if (!cell || event.altKey || event.ctrlKey || event.metaKey) return;
      const view = of(cell);
      if (event.key === "Enter" || event.key === " ") ask(view, cell);
      else if (!go(view, cell, event.key)) return;
      event.preventDefault();
    });
    for (const kind of ["focusin", "pointerover"]) {
      document.addEventListener(kind, (event) => {
        const cell = event.target.closest?.(".lpr-causal-grid td[data-p]");
        if (cell) say(of(cell), cell);
      });
    }
    document.addEventListener("change", (event) => {
      const view = event.target.closest?.(".lpr-segments") ? of(event.target) : null;
      if (!view) return;
      view.box.dataset.expert = event.target.value;
      view.box.dataset.cell = "";
      view.box.querySelector(".lpr-causal-said").textContent = view.experts[expertOf(view)].said;
      drawCells(view);
      tell(view, "lpr:address");
    });
  })();
}
