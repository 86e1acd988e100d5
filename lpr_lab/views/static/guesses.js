// A logit lens: draws the best guesses of one model at a time, lets a reader walk over them, and shows the likeliest of
// both models at the chosen cell. What is chosen stands in the section's data attributes. Listens once per page for all
// grids, also those drawn later. Text is only ever written with textContent; whoever listens hears the address of what
// is shown as a bubbling `lpr:address` event.
if (!window.lprGuesses) {
  (function () {
    "use strict";
    const drawn = new WeakMap();
    const { unpack, make } = window.lprCells;
    const OTHER = { base: "expanded", expanded: "base" };
    // Never rounded to all or nothing: with one digit, or with none where that says enough.
    function exactly(share, digits = 1) {
      if (share > 0 && share < 0.001) return "<0.1%";
      if (share > 0.999 && share < 1) return ">99.9%";
      return (100 * share).toFixed(digits) + "%";
    }
    const share = (value) => exactly(value, value < 0.1 || (value > 0.99 && value < 1) ? 1 : 0);

    // Draw a grid, unless it stands there already as its attributes say.
    window.lprGuesses = function (box) {
      const grid = box.querySelector(".lpr-guesses-grid");
      const known = drawn.get(box);
      if (known?.from === box.dataset.guesses && grid.tBodies[0].rows.length) return known;
      const data = JSON.parse(box.dataset.guesses);
      const view = { from: box.dataset.guesses, box, grid, data, width: data.layers.length, fresh: unpack(data.new), models: {} };
      for (const [name, one] of Object.entries(data.models)) {
        view.models[name] = {
          said: one.said, words: unpack(one.words, Int32Array), probs: unpack(one.probs),
          next: [unpack(one.next_prob), unpack(one.next_rank, Int32Array)], final: [unpack(one.final_prob), unpack(one.final_rank, Int32Array)],
        };
      }
      drawn.set(box, view);
      drawHead(view);
      drawCells(view);
      return view;
    };
    const of = (element) => {
      const box = element?.closest?.(".lpr-guesses");
      return box ? window.lprGuesses(box) : null;
    };
    const modelOf = (view) => (view.box.dataset.model in view.models ? view.box.dataset.model : "expanded");
    // What a model guesses in a layer (by its place) after a token: words, best first, each with its probability.
    function guesses(view, name, place, token) {
      const { words, probs } = view.models[name];
      const start = (token * view.width + place) * view.data.top;
      return Array.from({ length: view.data.top }, (_, i) => ({ id: words[start + i], p: probs[start + i], word: view.data.words[words[start + i]] }));
    }
    const asked = ([probs, ranks], view, place, token) => ({ p: probs[token * view.width + place], rank: ranks[token * view.width + place] });
    const isNext = (view, guess, token) => view.data.ids[guess.id] === view.data.follows[token];

    function drawHead(view) {
      const line = make("tr");
      line.append(make("th", "Read", { scope: "col" }), make("th", "Then comes", { scope: "col" }));
      for (const layer of view.data.layers) line.append(make("th", String(layer), { scope: "col", "aria-label": "layer " + layer }));
      view.grid.tHead.replaceChildren(line);
    }
    function drawCells(view) {
      const rows = document.createDocumentFragment();
      rows.append(drawRouting(view));
      for (let token = 0; token < view.data.shown; token++) rows.append(drawRow(view, token));
      view.grid.tBodies[0].replaceChildren(rows);
      const [layer, token] = view.box.dataset.cell.split(".").map(Number);
      const chosen = view.box.dataset.cell ? cellAt(view, view.data.layers.indexOf(layer), token) : null;
      chosen?.setAttribute("aria-selected", "true");
      const stop = chosen ?? cellAt(view, 0, 0);
      if (stop) stop.tabIndex = 0;
      drawFive(view, chosen);
      if (!chosen) return;
      const around = view.grid.parentElement;
      around.scrollTop = chosen.offsetTop - around.clientHeight / 2;
      around.scrollLeft = chosen.offsetLeft - around.clientWidth / 2;
      say(view, chosen);
    }
    // Above the tokens, the mean weight of the new experts in each layer.
    function drawRouting(view) {
      const line = make("tr", "", { class: "lpr-guesses-routing" });
      const head = make("th", "New experts", { scope: "row" });
      line.append(head, make("td", "mean weight"));
      view.data.layers.forEach((_, place) => {
        let sum = 0;
        for (let token = 0; token < view.data.shown; token++) sum += view.fresh[token * view.width + place];
        const mean = sum / view.data.shown;
        line.append(make("td", Number.isFinite(mean) ? share(mean) : "–", Number.isFinite(mean) ? { style: `--w:${mean.toFixed(3)}` } : { title: "no router" }));
      });
      return line;
    }
    function drawRow(view, token) {
      const line = make("tr");
      const head = make("th", "", { scope: "row" });
      head.append(make("small", String(token + 1)), " ", make("bdi", view.data.tokens[token]));
      const next = make("td", "", { class: "lpr-guesses-next" });
      next.append(make("bdi", view.data.tokens[token + 1] ?? "–"));
      line.append(head, next);
      for (let place = 0; place < view.width; place++) line.append(drawCell(view, place, token));
      return line;
    }
    function drawCell(view, place, token) {
      const name = modelOf(view);
      const [best] = guesses(view, name, place, token);
      const [other] = guesses(view, OTHER[name], place, token);
      const [label, mark, said, role] = best.word;
      const weight = view.fresh[token * view.width + place];
      const right = isNext(view, best, token);
      const parts = [`layer ${view.data.layers[place]}, after token ${token + 1} “${view.data.tokens[token]}”: “${label}”, ${said}, ${exactly(best.p)}`];
      if (right) parts.push("it really follows");
      if (other.id !== best.id) parts.push(`${OTHER[name]} guesses “${other.word[0]}”`);
      if (Number.isFinite(weight)) parts.push(`new experts ${exactly(weight)}`);
      const cell = make("td", "", {
        tabindex: "-1", "data-p": place, "data-t": token, "aria-label": parts.join("; "), class: "lpr-guess-" + (role || "open"),
        style: `--a:${best.p.toFixed(3)};--w:${(Number.isFinite(weight) ? weight : 0).toFixed(3)}`,
      });
      const small = make("small");
      if (mark) small.append(make("i", mark), " ");
      small.append(share(best.p), right ? " ✓" : "", other.id === best.id ? "" : " ≠");
      cell.append(make("bdi", label), small);
      return cell;
    }
    const cellAt = (view, place, token) => view.grid.querySelector(`td[data-p="${place}"][data-t="${token}"]`);
    function say(view, cell) {
      const words = cell.getAttribute("aria-label");
      view.box.querySelector(".lpr-guesses-here").textContent = words[0].toUpperCase() + words.slice(1) + ".";
    }

    // The likeliest next tokens of both models at the chosen cell, and how the models rank two tokens that matter.
    function drawFive(view, cell) {
      const panel = view.box.querySelector(".lpr-guesses-five");
      panel.hidden = !cell;
      if (!cell) return panel.replaceChildren();
      const [place, token] = [Number(cell.dataset.p), Number(cell.dataset.t)];
      const names = ["expanded", "base"];
      const weight = view.fresh[token * view.width + place];
      const title = make("h3", `Layer ${view.data.layers[place]}, after token ${token + 1} “`);
      title.append(make("bdi", view.data.tokens[token]), "”");
      const routing = Number.isFinite(weight) ? `The new experts have ${exactly(weight)} of the weight on this token here.` : "This layer has no router.";
      const table = make("table", "", { class: "lpr-table lpr-plain" });
      const line = make("tr");
      line.append(make("th", "Rank", { scope: "col" }), make("th", "Expanded", { scope: "col" }), make("th", "Base", { scope: "col" }));
      table.append(make("thead"), make("tbody"));
      table.tHead.append(line);
      for (let i = 0; i < view.data.top; i++) {
        table.tBodies[0].append(row(String(i + 1), names.map((name) => {
          const guess = guesses(view, name, place, token)[i];
          return [guess.word[0], `${guess.word[2]}, ${exactly(guess.p)}${isNext(view, guess, token) ? ", really follows" : ""}`];
        })));
      }
      const rank = (key, name) => asked(view.models[name][key], view, place, token);
      const ranked = ({ p, rank: at }) => `${exactly(p)}, rank ${at.toLocaleString("en")}`;
      if (view.data.tokens[token + 1] !== undefined && token < view.data.follows.length) {
        table.tBodies[0].append(row("Really follows", names.map((name) => [view.data.tokens[token + 1], ranked(rank("next", name))])));
      }
      table.tBodies[0].append(row("Model’s own guess", names.map((name) => {
        const [last] = guesses(view, name, view.width - 1, token);
        return [last.word[0], ranked(rank("final", name))];
      })));
      const scroll = make("div", "", { class: "lpr-scroll", tabindex: "0", role: "region", "aria-label": "The five likeliest next tokens of both models" });
      scroll.append(table);
      panel.replaceChildren(title, make("p", routing), scroll);
    }
    function row(name, cells) {
      const line = make("tr");
      line.append(make("th", name, { scope: "row" }));
      for (const [label, said] of cells) {
        const cell = make("td");
        cell.append(make("bdi", label), " ", make("small", said));
        line.append(cell);
      }
      return line;
    }

    function choose(view, cell) {
      for (const other of view.grid.querySelectorAll("[aria-selected=true], td[tabindex='0']")) {
        other.removeAttribute("aria-selected");
        other.tabIndex = -1;
      }
      cell.setAttribute("aria-selected", "true");
      cell.tabIndex = 0;
      view.box.dataset.cell = `${view.data.layers[Number(cell.dataset.p)]}.${cell.dataset.t}`;
      drawFive(view, cell);
      tell(view);
    }
    function tell(view) {
      const query = new URLSearchParams(location.search);
      query.set("guess", [modelOf(view), view.box.dataset.cell].filter(Boolean).join("."));
      view.box.dispatchEvent(new CustomEvent("lpr:address", { bubbles: true, detail: query.toString().replaceAll("%2C", ",") }));
    }

    const CELL = ".lpr-guesses-grid td[data-p]";
    document.addEventListener("click", (event) => {
      const cell = event.target.closest?.(CELL);
      if (cell) choose(of(cell), cell);
    });
    document.addEventListener("keydown", (event) => {
      const cell = event.target.closest?.(CELL);
      if (!cell || event.altKey || event.ctrlKey || event.metaKey) return;
      const view = of(cell);
      if (event.key === "Enter" || event.key === " ") choose(view, cell);
      else {
        const place = window.lprCells.step([Number(cell.dataset.p), Number(cell.dataset.t)], event.key, [view.width - 1, view.data.shown - 1]);
        if (!place) return;
        window.lprCells.focus(cell, cellAt(view, ...place));
      }
      event.preventDefault();
    });
    for (const kind of ["focusin", "pointerover"]) {
      document.addEventListener(kind, (event) => {
        const cell = event.target.closest?.(CELL);
        if (cell) say(of(cell), cell);
      });
    }
    document.addEventListener("change", (event) => {
      const view = event.target.closest?.(".lpr-guesses .lpr-segments") ? of(event.target) : null;
      if (!view) return;
      view.box.dataset.model = event.target.value;
      view.box.querySelector(".lpr-guesses-said").textContent = view.models[modelOf(view)].said;
      const { scrollTop, scrollLeft } = view.grid.parentElement;
      drawCells(view);
      Object.assign(view.grid.parentElement, { scrollTop, scrollLeft });
      tell(view);
    });
  })();
}
