// Brings one token strip to life: choosing tokens, layers, experts and colourings without asking anybody.
// Text is only ever written with textContent. Changes are announced as a bubbling `lpr:change` event.
window.lprTokenStrip = function (strip) {
  "use strict";
  if (strip.dataset.lprReady) return;
  strip.dataset.lprReady = "1";
  const text = strip.querySelector(".lpr-text").textContent;
  const last = window.lprTokenStrip.last;
  if (strip.dataset.linked === "yes" && last?.text === text) Object.assign(strip.dataset, last.state); // drawn anew
  const numbers = window.lprTokenNumbers(strip);
  const { layers, bits, tokens, count, names } = numbers;
  const paragraph = strip.querySelector(".lpr-text");
  const chips = strip.querySelector(".lpr-chips");
  const panel = strip.querySelector(".lpr-token");
  const profile = strip.querySelector(".lpr-profile");
  const picked = strip.querySelector(".lpr-picked");
  const live = strip.querySelector(".lpr-live");
  const reverse = getComputedStyle(paragraph).direction === "rtl";
  const columns = [...strip.querySelectorAll(".lpr-column")];
  const heights = () => columns.map((column) => [...column.querySelectorAll("i")].map((bar) => bar.style.height));
  const wholeText = heights();
  const number = (text) => (text === "" || text === "all" || text === undefined || text === null ? null : Number(text));
  const state = {
    layer: number(strip.dataset.layer),
    expert: number(strip.dataset.expert),
    row: () => (state.layer === null ? null : layers.indexOf(state.layer)),
    layerName: () => (state.layer === null ? "all layers" : "layer " + state.layer),
    isPicked: (token) => state.expert === null || (numbers.isText(token) && numbers.first(state.row(), token) === state.expert),
  };
  let chosen = number(strip.dataset.token);
  let pinned = chosen !== null;
  let hovered = null;
  function percent(share) {
    const value = 100 * share;
    if (value > 0 && value < 0.1) return "<0.1%";
    if (value > 99.9 && value < 99.998) return ">99.9%";
    const near = (value > 0 && value < 1) || (value > 99 && value < 99.998);
    return value.toFixed(near ? 1 : 0) + "%";
  }
  const { gain } = numbers;
  const at = (token) => numbers.weights(state.row(), token);
  const { paint } = window.lprTokenLooks(strip, numbers, state, reverse);
  const grid = window.lprTokenGrid(strip, numbers, state, { pick, percent });

  function drawProfile(token) {
    columns.forEach((column, position) => {
      const key = column.dataset.row;
      column.classList.toggle("lpr-current", key === (state.layer === null ? "all" : String(state.layer)));
      const list = token === null ? null : numbers.weights(position === 0 ? null : position - 1, token);
      [...column.querySelectorAll("i")].forEach((bar, expert) => {
        bar.style.height = list ? 100 * list[expert] + "%" : wholeText[position][expert];
      });
    });
    strip.querySelector(".lpr-of").textContent = token === null ? "whole text" : `token ${token + 1}, “${name(token)}”`;
    const position = state.layer === null ? 0 : state.row() + 1;
    const original = parseFloat(columns[position].querySelector("i").style.height) / 100;
    const said = `${state.layer === null ? "All layers" : "Layer " + state.layer}: original expert ${percent(original)}`;
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
    return `token ${token + 1} of ${count}, ${name(token)}${where}, ${state.layerName()}: ${split.join(", ")}`;
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
    if (layers.length) facts.append(...line("Original expert", `${percent(own[0])}, ${state.layerName()}`));
    if (numbers.hasProbs) {
      const list = numbers.probs(state.row(), token).map((p, e) => `${e}: ${percent(p)}`);
      facts.append(...line("Router", `${list.join(", ")}, ${state.layerName()}`));
    }
    if (gain(token) !== null) {
      const won = gain(token);
      const change = `${won >= 0 ? "−" : "+"}${Math.abs(won).toFixed(1)}`;
      facts.append(...line("Surprise", `${bits[0][token].toFixed(1)} bits ${names[0]}, ${bits[1][token].toFixed(1)} ${names[1]} (${change})`));
    } else if (numbers.surprise(token) !== null) {
      facts.append(...line("Surprise", `${numbers.surprise(token).toFixed(1)} bits`));
    }
    if (numbers.change) {
      const { mean, moved } = numbers.shift(state.row(), token);
      const way = `${mean >= 0 ? "+" : "−"}${percent(Math.abs(mean))} original`;
      const where = state.layer === null ? ` in ${moved} of ${layers.length} layers` : "";
      facts.append(...line("Since " + numbers.from, moved ? `moved${where}, ${way}` : `stayed, ${way}`));
    }
    if (layers.length > 1) {
      const [dt, dd] = line("p(original)", "");
      dd.append(grid.spark(token) ?? "");
      facts.append(dt, dd);
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
    if (!layers.length) return;
    drawProfile(token);
    grid.draw(token, token === null ? "" : name(token));
  }
  function announce() {
    if (strip.dataset.linked !== "yes") return;
    const { mode, colour, layer, expert } = strip.dataset;
    window.lprTokenStrip.last = { text, state: { layer, expert, token: chosen === null ? "" : String(chosen) } };
    const detail = { layer: state.layer ?? "", expert: state.expert ?? "", tok: chosen ?? "", mode, colour };
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
  function setLayer(next, { aloud = true, expert = state.expert } = {}) {
    state.layer = next;
    const exists = next !== null && expert !== null && expert < numbers.experts[layers.indexOf(next)];
    state.expert = exists ? expert : null;
    strip.dataset.layer = next === null ? "all" : String(next);
    strip.dataset.expert = state.expert ?? "";
    paint();
    sayPicked();
    show();
    announce();
    if (aloud && chosen !== null) {
      option(chosen)?.setAttribute("aria-label", spoken(chosen));
      say(spoken(chosen));
    }
  }
  // A cell of the table picks out the tokens that went there; without an expert all are shown again.
  function pick(layer, expert) {
    setLayer(layer, { expert, aloud: false });
    say(expert === null ? "All tokens are shown." : picked.firstChild.textContent);
  }
  function sayPicked() {
    picked.hidden = state.expert === null;
    if (picked.hidden) return;
    const text = tokens.map((_, token) => token).filter(numbers.isText);
    const found = text.filter(state.isPicked).length;
    const kind = state.expert === 0 ? "expert 0, the original" : `expert ${state.expert}`;
    const all = Object.assign(document.createElement("button"), { type: "button", textContent: "Show all" });
    all.addEventListener("click", () => pick(state.layer, null));
    picked.replaceChildren(`Layer ${state.layer}, ${kind}: ${found} of ${text.length} tokens went there. `, all);
  }
  function step(by) {
    const wanted = (state.layer === null ? 0 : state.row() + 1) + by;
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
      if (next !== state.layer) setLayer(next, { aloud: false });
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
      else if (event.key === "Home") setLayer(null, { aloud: false });
      else if (event.key === "End") setLayer(layers.at(-1), { aloud: false });
      else return;
      event.preventDefault();
    });
  }
  strip.addEventListener("change", (event) => {
    const what = event.target.dataset.set;
    if (what === "mode") setMode(event.target.value, false);
    if (what === "colour") {
      strip.dataset.colour = event.target.value;
      if (event.target.value === "expert" && state.layer === null && layers.length)
        setLayer(layers[layers.length >> 1], { aloud: false });
      paint();
      announce();
    }
  });

  // The address was changed by the back button.
  strip.addEventListener("lpr:restore", (event) => {
    const { layer, expert, tok, mode, colour } = event.detail;
    const linked = strip.dataset.linked;
    strip.dataset.linked = "no";
    strip.dataset.colour = colour;
    for (const input of strip.querySelectorAll("input[data-set]")) input.checked = { mode, colour }[input.dataset.set] === input.value;
    chosen = number(tok);
    pinned = chosen !== null;
    setMode(mode, false);
    setLayer(layers.includes(number(layer)) ? number(layer) : null, { aloud: false, expert: number(expert) });
    strip.dataset.linked = linked;
  });

  if (layers.length && !layers.includes(state.layer)) state.layer = null;
  const { expert } = state;
  setMode(strip.dataset.mode, false);
  setLayer(state.layer, { aloud: false, expert });
};
