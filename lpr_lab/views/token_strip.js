// Brings one token strip to life: choosing tokens, layers and colourings without asking anybody.
// Text is only ever written with textContent. Changes are announced as a bubbling `lpr:change` event.
window.lprTokenStrip = function (strip) {
  "use strict";
  if (strip.dataset.lprReady) return;
  strip.dataset.lprReady = "1";
  const data = JSON.parse(strip.dataset.trace);
  const { layers, experts, k, bits, tokens } = data;
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const ids = bytes(data.ids);
  const raw = bytes(data.weights);
  const shares = new Uint16Array(raw.length >> 1).map((_, i) => raw[2 * i] | (raw[2 * i + 1] << 8));
  const count = tokens.length;
  const paragraph = strip.querySelector(".lpr-text");
  const chips = strip.querySelector(".lpr-chips");
  const panel = strip.querySelector(".lpr-token");
  const profile = strip.querySelector(".lpr-profile");
  const legend = strip.querySelector(".lpr-legend");
  const live = strip.querySelector(".lpr-live");
  const reverse = getComputedStyle(paragraph).direction === "rtl";
  const columns = [...strip.querySelectorAll(".lpr-column")];
  const heights = () => columns.map((column) => [...column.querySelectorAll("i")].map((bar) => bar.style.height));
  const wholeText = heights();
  const number = (text) => (text === "" || text === undefined ? null : Number(text));
  let layer = strip.dataset.layer === "all" ? null : number(strip.dataset.layer);
  let chosen = number(strip.dataset.token);
  let pinned = chosen !== null;
  let hovered = null;

  // ---- numbers ------------------------------------------------------------------------------------------------
  function weights(row, token) {
    const out = new Array(experts[row]).fill(0);
    for (let slot = 0; slot < k; slot++) {
      const at = (row * count + token) * k + slot;
      if (ids[at] < out.length) out[ids[at]] += shares[at] / 65535;
    }
    return out;
  }
  function meanWeights(token) {
    const out = new Array(Math.max(...experts, 1)).fill(0);
    layers.forEach((_, row) => weights(row, token).forEach((w, e) => (out[e] += w / layers.length)));
    return out;
  }
  const at = (token) => (layer === null ? meanWeights(token) : weights(layers.indexOf(layer), token));
  const best = (list) => list.indexOf(Math.max(...list));
  function percent(share) {
    const value = 100 * share;
    if (value > 0 && value < 0.1) return "<0.1%";
    if (value > 99.9 && value < 99.998) return ">99.9%";
    const near = (value > 0 && value < 1) || (value > 99 && value < 99.998);
    return value.toFixed(near ? 1 : 0) + "%";
  }
  const gain = (token) =>
    bits && bits[0][token] !== null && bits[1][token] !== null ? bits[0][token] - bits[1][token] : null;
  const layerName = () => (layer === null ? "all layers" : "layer " + layer);

  // ---- painting -----------------------------------------------------------------------------------------------
  // Every token gets a tone (colour variable), whether its line is dashed, and the strength of its tint.
  function look(token) {
    const colour = strip.dataset.colour;
    if (colour === "gain") {
      const bitsWon = gain(token);
      if (bitsWon === null) return { tone: "line-strong", dashed: true, alpha: 0 };
      const alpha = 0.03 + 0.2 * Math.min(Math.abs(bitsWon) / 6, 1);
      return { tone: bitsWon >= 0 ? "good" : "bad", dashed: bitsWon < 0, alpha };
    }
    const list = at(token);
    if (colour === "expert") {
      const expert = best(list);
      return { tone: "expert-" + Math.min(expert, 6), dashed: expert > 0, alpha: 0.03 + 0.14 * list[expert] };
    }
    const original = list[0];
    return {
      tone: original >= 0.5 ? "original" : "new",
      dashed: original < 0.5,
      alpha: 0.03 + 0.14 * Math.abs(2 * original - 1),
    };
  }
  function paintOne(element, { tone, dashed, alpha }) {
    element.style.setProperty("--tone", `var(--lpr-${tone})`);
    element.style.setProperty("--a", alpha.toFixed(3));
    element.classList.toggle("lpr-n", dashed);
    element.classList.toggle("lpr-o", !dashed);
  }
  const solid = (tone) => `linear-gradient(var(--lpr-${tone}),var(--lpr-${tone}))`;
  const dashes = (tone) => `repeating-linear-gradient(90deg,var(--lpr-${tone}) 0 3px,transparent 3px 5px)`;
  function paintShared(element, looks) {
    const n = looks.length;
    const place = (i) => (100 * (reverse ? n - 1 - i : i)) / Math.max(n - 1, 1);
    const strongest = looks.reduce((a, b) => (b.alpha > a.alpha ? b : a));
    element.style.setProperty("--tone", `var(--lpr-${strongest.tone})`);
    element.style.setProperty("--a", (looks.reduce((sum, l) => sum + l.alpha, 0) / n).toFixed(3));
    const lines = looks.map((l) => (l.dashed ? dashes : solid)(l.tone));
    element.style.backgroundImage = [...lines, "var(--lpr-wash)"].join(",");
    element.style.backgroundSize = [...lines.map(() => `calc(${100 / n}% - 1px) 3px`), "calc(100% - 1px) 100%"].join(",");
    element.style.backgroundPosition = [...looks.map((_, i) => place(i) + "% 100%"), (reverse ? "100%" : "0") + " 0"].join(",");
  }
  function paint() {
    const looks = tokens.map((_, token) => look(token));
    for (const element of strip.querySelectorAll("[data-t]")) {
      const own = element.dataset.t.split(" ").map((i) => looks[i]);
      if (element.classList.contains("lpr-shared")) paintShared(element, own);
      else paintOne(element, own[0]);
    }
    writeLegend();
  }
  function writeLegend() {
    if (!layers.length) return legend.replaceChildren();
    const texts = {
      original: [
        ["original", false, "mostly the original expert, frozen"],
        ["new", true, "mostly new experts"],
      ],
      gain: [
        ["good", false, "the expanded model expected it more"],
        ["bad", true, "the base model expected it more"],
      ],
      expert: [...Array(Math.min(Math.max(...experts), 7)).keys()].map((e) => [
        "expert-" + e, e > 0, e === 0 ? "expert 0, the original" : "expert " + e + (e === 6 ? " and on" : ""),
      ]),
    }[strip.dataset.colour];
    const where = strip.dataset.colour === "gain" ? "" : `, ${layer === null ? "mean over all layers" : layerName()}`;
    legend.replaceChildren(
      ...texts.map(([tone, dashed, text]) => {
        const item = document.createElement("span");
        const swatch = document.createElement("i");
        paintOne(swatch, { tone, dashed, alpha: 0.17 });
        item.append(swatch, text);
        return item;
      }),
      Object.assign(document.createElement("span"), { textContent: "The deeper the tint, the clearer the choice" + where + "." })
    );
  }
  function drawProfile(token) {
    columns.forEach((column, position) => {
      const key = column.dataset.row;
      column.classList.toggle("lpr-current", key === (layer === null ? "all" : String(layer)));
      const list = token === null ? null : position === 0 ? meanWeights(token) : weights(position - 1, token);
      [...column.querySelectorAll("i")].forEach((bar, expert) => {
        bar.style.height = list ? 100 * list[expert] + "%" : wholeText[position][expert];
      });
    });
    strip.querySelector(".lpr-of").textContent = token === null ? "whole text" : `token ${token + 1}, “${name(token)}”`;
    const position = layer === null ? 0 : layers.indexOf(layer) + 1;
    const original = parseFloat(columns[position].querySelector("i").style.height) / 100;
    const said = `${layer === null ? "All layers" : "Layer " + layer}: original expert ${percent(original)}`;
    strip.querySelector(".lpr-reading").textContent = said;
    profile.setAttribute("aria-valuenow", String(position));
    profile.setAttribute("aria-valuetext", said);
  }

  // ---- words --------------------------------------------------------------------------------------------------
  const name = (token) => tokens[token][1].trim() || tokens[token][0];
  function spoken(token) {
    const list = at(token);
    const [, , , , part, parts] = tokens[token];
    const where = parts > 1 ? `, part ${part} of ${parts}` : "";
    const split = list.map((w, e) => `expert ${e} ${e ? "new" : "original"} ${percent(w)}`).filter((_, e) => list[e] > 0);
    return `token ${token + 1} of ${count}, ${name(token)}${where}, ${layerName()}: ${split.join(", ")}`;
  }
  function line(term, value) {
    const dt = Object.assign(document.createElement("dt"), { textContent: term });
    const dd = Object.assign(document.createElement("dd"), { textContent: value });
    return [dt, dd];
  }
  function describe(token) {
    if (token === null) {
      const hint = "Point at a token, or step into the text with Tab and walk it with the arrow keys. Enter pins.";
      return panel.replaceChildren(Object.assign(document.createElement("p"), { className: "lpr-hint", textContent: hint }));
    }
    const [label, whole, hex, id, part, parts] = tokens[token];
    const glyph = Object.assign(document.createElement("bdi"), { className: "lpr-glyph", textContent: whole.trim() || label });
    if (paragraph.lang) glyph.lang = paragraph.lang;
    const facts = document.createElement("dl");
    const own = at(token);
    facts.append(
      ...line("Token", `${token + 1} of ${count}${pinned && token === chosen ? ", pinned" : ""}`),
      ...line("Bytes", (hex || "none") + (parts > 1 ? ` (part ${part} of ${parts} of this character)` : "")),
      ...line("Vocabulary id", String(id))
    );
    if (layers.length) facts.append(...line("Original expert", `${percent(own[0])}, ${layerName()}`));
    if (gain(token) !== null) {
      const won = gain(token);
      const change = `${won >= 0 ? "−" : "+"}${Math.abs(won).toFixed(1)}`;
      facts.append(...line("Surprise", `${bits[0][token].toFixed(1)} bits base, ${bits[1][token].toFixed(1)} expanded (${change})`));
    }
    panel.replaceChildren(glyph, facts);
  }

  // ---- state --------------------------------------------------------------------------------------------------
  const box = () => (strip.dataset.mode === "tokens" ? chips : paragraph);
  const option = (token) => box().querySelector(`[role=option][data-i="${token}"]`);
  function show() {
    const token = hovered ?? chosen;
    for (const element of strip.querySelectorAll(".lpr-on")) element.classList.remove("lpr-on");
    if (token !== null) for (const e of box().querySelectorAll(`[data-t~="${token}"]`)) e.classList.add("lpr-on");
    describe(token);
    if (layers.length) drawProfile(token);
  }
  function announce() {
    const detail = { layer: layer === null ? "" : layer, tok: chosen ?? "", mode: strip.dataset.mode, colour: strip.dataset.colour };
    strip.dispatchEvent(new CustomEvent("lpr:change", { bubbles: true, detail }));
  }
  let timer = 0;
  function say(text) {
    clearTimeout(timer);
    timer = setTimeout(() => (live.textContent = text), 250);
  }
  function select(token, { focus = true, pin = false } = {}) {
    for (const other of strip.querySelectorAll("[role=option][tabindex='0']")) {
      other.tabIndex = -1;
      other.setAttribute("aria-selected", "false");
    }
    chosen = token;
    pinned = pin;
    const target = option(token ?? 0);
    if (target) {
      target.tabIndex = 0;
      if (token !== null) {
        target.setAttribute("aria-selected", "true");
        target.setAttribute("aria-label", spoken(token));
        if (focus) target.focus({ preventScroll: false });
      }
    }
    show();
    announce();
  }
  function setLayer(next, aloud = true) {
    layer = next;
    strip.dataset.layer = next === null ? "all" : String(next);
    paint();
    show();
    announce();
    if (aloud && chosen !== null) {
      option(chosen)?.setAttribute("aria-label", spoken(chosen));
      say(spoken(chosen));
    }
  }
  function step(by) {
    const wanted = (layer === null ? 0 : layers.indexOf(layer) + 1) + by;
    const position = Math.min(Math.max(wanted, 0), layers.length);
    setLayer(position === 0 ? null : layers[position - 1]);
  }
  function setMode(mode, focus) {
    strip.dataset.mode = mode;
    if (mode === "tokens" && !chips.childElementCount) drawChips();
    paragraph.hidden = mode === "tokens";
    chips.hidden = mode !== "tokens";
    select(chosen, { focus, pin: pinned });
  }
  function drawChips() {
    tokens.forEach(([label, , , , part, parts], token) => {
      const chip = document.createElement("span");
      chip.className = "lpr-chip lpr-t";
      chip.dataset.t = chip.dataset.i = String(token);
      chip.setAttribute("role", "option");
      chip.tabIndex = -1;
      chip.setAttribute("aria-label", spoken(token));
      const text = Object.assign(document.createElement("bdi"), { textContent: label });
      const place = Object.assign(document.createElement("small"), { textContent: parts > 1 ? `${part}/${parts}` : String(token + 1) });
      chip.append(place, text);
      chips.append(chip);
    });
    paint();
  }

  // ---- listening: one delegated listener per kind of event ----------------------------------------------------------
  const tokenAt = (event) => {
    const inner = event.target.closest("[data-i]");
    const outer = event.target.closest("[data-t]");
    return inner ? Number(inner.dataset.i) : outer ? Number(outer.dataset.t.split(" ")[0]) : null;
  };
  strip.addEventListener("keydown", (event) => {
    if (event.target.getAttribute("role") !== "option" || event.altKey || event.ctrlKey || event.metaKey) return;
    const here = Number(event.target.dataset.i);
    const forward = reverse && strip.dataset.mode !== "tokens" ? -1 : 1;
    const go = { ArrowRight: here + forward, ArrowLeft: here - forward, Home: 0, End: count - 1 }[event.key];
    if (go !== undefined) select(Math.min(Math.max(go, 0), count - 1));
    else if (event.key === "ArrowUp") step(-1);
    else if (event.key === "ArrowDown") step(1);
    else if (event.key === "Enter" || event.key === " ") {
      select(here, { pin: true });
      say("Pinned " + spoken(here));
    } else if (event.key === "Escape") select(null, { focus: false });
    else return;
    event.preventDefault();
  });
  strip.addEventListener("focusin", (event) => {
    if (event.target.getAttribute("role") === "option" && chosen !== Number(event.target.dataset.i))
      select(Number(event.target.dataset.i), { focus: false });
  });
  strip.addEventListener("click", (event) => {
    const token = tokenAt(event);
    if (token !== null) select(token, { pin: true });
  });
  strip.addEventListener("pointerover", (event) => {
    if (event.pointerType === "touch" || pinned) return;
    const token = tokenAt(event);
    if (token !== hovered) {
      hovered = token;
      show();
    }
  });
  strip.addEventListener("pointerleave", () => {
    if (hovered !== null) {
      hovered = null;
      show();
    }
  });
  if (profile) {
    const scrub = (event) => {
      const edges = columns.map((column) => column.getBoundingClientRect());
      const position = edges.findLastIndex((edge) => event.clientX >= edge.left);
      const next = position <= 0 ? null : layers[position - 1];
      if (next !== layer) setLayer(next, false);
    };
    profile.addEventListener("pointerdown", (event) => {
      profile.setPointerCapture(event.pointerId);
      scrub(event);
    });
    profile.addEventListener("pointermove", (event) => {
      if (profile.hasPointerCapture(event.pointerId)) scrub(event);
    });
    profile.addEventListener("keydown", (event) => {
      const jump = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, PageDown: 5, PageUp: -5 }[event.key];
      if (jump) step(jump);
      else if (event.key === "Home") setLayer(null, false);
      else if (event.key === "End") setLayer(layers.at(-1), false);
      else return;
      event.preventDefault();
    });
  }
  strip.addEventListener("change", (event) => {
    const what = event.target.dataset.set;
    if (what === "mode") setMode(event.target.value, false);
    if (what === "colour") {
      strip.dataset.colour = event.target.value;
      if (event.target.value === "expert" && layer === null && layers.length) setLayer(layers[layers.length >> 1], false);
      paint();
      announce();
    }
  });

  if (layers.length && !layers.includes(layer)) layer = null;
  setMode(strip.dataset.mode, false);
  setLayer(layer, false);
};
