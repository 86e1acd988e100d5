// One token strip as it is drawn now: choosing tokens, layers, experts and colourings without asking anybody.
// What is chosen stands in the section's data attributes and nowhere else. Nothing here listens: pages change strips in
// place, so `token_events.js` listens once for all and asks `lprTokenStrip.of` for the strip that an event met.
// Text is only ever written with textContent. Choices are announced as a bubbling `lpr:change` event.
if (!window.lprTokenStrip?.of) {
  (function () {
    "use strict";
    const drawn = new WeakMap();

    // Draw a strip from its attributes, as Python wrote them.
    window.lprTokenStrip = function (strip) {
      strip.dataset.lprReady = "1";
      const view = makeView(strip);
      drawn.set(strip, view);
      view.redraw();
      return view;
    };
    // The strip around an element, or null; drawn anew when its numbers are others than those it was drawn from.
    window.lprTokenStrip.of = function (element) {
      const strip = element?.closest?.(".lpr-strip");
      const view = strip && drawn.get(strip);
      if (!view) return null;
      return view.trace === strip.dataset.trace ? view : window.lprTokenStrip(strip);
    };

    function makeView(strip) {
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
      const wholeText = columns.map((column) => [...column.querySelectorAll("i")].map((bar) => bar.style.height));

      // ---- state: read from the attributes, so that there is one truth ---------------------------------------------
      const number = (text) => (/^\d+$/.test(text ?? "") ? Number(text) : null);
      const among = (value, all) => (all.includes(value) ? value : null);
      const state = {
        get layer() { return among(number(strip.dataset.layer), layers); },
        get expert() {
          const expert = number(strip.dataset.expert);
          return this.layer !== null && expert !== null && expert < numbers.experts[this.row()] ? expert : null;
        },
        get token() {
          const token = number(strip.dataset.token);
          return token !== null && token < count ? token : null;
        },
        row: () => (state.layer === null ? null : layers.indexOf(state.layer)),
        layerName: () => (state.layer === null ? "all layers" : "layer " + state.layer),
        isPicked: (token) => state.expert === null || (numbers.isText(token) && numbers.first(state.row(), token) === state.expert),
      };
      let pinned = state.token !== null;
      let hovered = null;
      const snapshot = () => ({
        layer: state.layer ?? "", expert: state.expert ?? "", tok: state.token ?? "", mode: strip.dataset.mode, colour: strip.dataset.colour,
      });
      let announced = JSON.stringify(snapshot());

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
      const grid = window.lprTokenGrid(strip, numbers, state, percent);

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
      // The way to an expert's own address, which remembers the token that it begins at; null where there is no such page.
      function wayTo(expert, token, text) {
        if (!strip.dataset.experts || state.layer === null) return null;
        const [page, query] = strip.dataset.experts.split("?");
        const asked = new URLSearchParams(query);
        const chosen = { layer: state.layer, expert, ...(token === null ? {} : { tok: token, mode: strip.dataset.mode }) };
        for (const [key, value] of Object.entries(chosen)) asked.set(key, value);
        return Object.assign(document.createElement("a"), { className: "lpr-way", href: `${page}?${asked}#lpr-expert`, textContent: text });
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
          ...line("Token", `${token + 1} of ${count}${pinned && token === state.token ? ", pinned" : ""}`),
          ...line("Bytes", (hex || "none") + (parts > 1 ? ` (part ${part} of ${parts} of this character)` : "")),
          ...line("Vocabulary id", String(id))
        );
        if (layers.length) facts.append(...line("Original expert", `${percent(own[0])}, ${state.layerName()}`));
        if (state.expert) facts.append(...line("Expert " + state.expert, `${percent(own[state.expert])}, ${state.layerName()}`));
        const first = state.layer === null ? 0 : numbers.first(state.row(), token);
        const way = wayTo(first, token, `expert ${first}, ${percent(own[first])}`);
        if (way) {
          const [dt, dd] = line("Went to", "");
          dd.append(way);
          facts.append(dt, dd);
        }
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

      // ---- drawing ------------------------------------------------------------------------------------------------
      const box = () => (strip.dataset.mode === "tokens" ? chips : paragraph);
      const option = (token) => box().querySelector(`[role=option][data-i="${token}"]`);
      function show() {
        const token = hovered ?? state.token;
        for (const element of strip.querySelectorAll(".lpr-on")) element.classList.remove("lpr-on");
        if (token !== null) for (const e of box().querySelectorAll(`[data-t~="${token}"]`)) e.classList.add("lpr-on");
        describe(token);
        if (!layers.length) return;
        drawProfile(token);
        grid.draw(token, token === null ? "" : name(token));
      }
      function sayPicked() {
        picked.hidden = state.expert === null;
        if (picked.hidden) return picked.replaceChildren();
        const text = tokens.map((_, token) => token).filter(numbers.isText);
        const found = text.filter(state.isPicked).length;
        const kind = state.expert === 0 ? "expert 0, the original" : `expert ${state.expert}`;
        const all = Object.assign(document.createElement("button"), { type: "button", textContent: "Show all" });
        all.dataset.all = "";
        picked.replaceChildren(`Layer ${state.layer}, ${kind}: ${found} of ${text.length} tokens went there. `, all);
        const way = wayTo(state.expert, state.token, "What this expert does");
        if (way) picked.append(" ", way);
      }
      function drawChips() {
        tokens.forEach(([label, , , , part, parts], token) => {
          const chip = document.createElement("span");
          chip.className = "lpr-chip lpr-t";
          chip.dataset.t = chip.dataset.i = String(token);
          chip.setAttribute("role", "option");
          chip.tabIndex = -1;
          chip.setAttribute("aria-selected", "false");
          chip.setAttribute("aria-label", spoken(token));
          const text = Object.assign(document.createElement("bdi"), { textContent: label });
          const place = Object.assign(document.createElement("small"), { textContent: parts > 1 ? `${part}/${parts}` : String(token + 1) });
          chip.append(place, text);
          chips.append(chip);
        });
      }
      // The one tab stop among the tokens, and the one that is said to be selected.
      function mark() {
        for (const other of strip.querySelectorAll("[role=option][tabindex='0']")) {
          other.tabIndex = -1;
          other.setAttribute("aria-selected", "false");
        }
        const target = option(state.token ?? 0);
        if (!target) return null;
        target.tabIndex = 0;
        if (state.token !== null) {
          target.setAttribute("aria-selected", "true");
          target.setAttribute("aria-label", spoken(state.token));
        }
        return target;
      }
      // Everything that a strip shows, from its attributes and numbers.
      function redraw() {
        const { mode, colour } = strip.dataset;
        for (const input of strip.querySelectorAll("input[data-set]")) input.checked = { mode, colour }[input.dataset.set] === input.value;
        if (mode === "tokens" && !chips.childElementCount) drawChips();
        paragraph.hidden = mode === "tokens";
        chips.hidden = mode !== "tokens";
        paint();
        sayPicked();
        mark();
        show();
      }

      // ---- choosing -----------------------------------------------------------------------------------------------
      function announce() {
        if (strip.dataset.linked !== "yes") return;
        const detail = snapshot();
        if (JSON.stringify(detail) === announced) return;
        announced = JSON.stringify(detail);
        strip.dispatchEvent(new CustomEvent("lpr:change", { bubbles: true, detail }));
      }
      let timer = 0;
      function say(text) {
        clearTimeout(timer);
        timer = setTimeout(() => (live.textContent = text), 250);
      }
      function select(token, { focus = true, pin = false } = {}) {
        pinned = pin;
        hovered = null;
        strip.dataset.token = token ?? "";
        const target = mark();
        show();
        announce();
        if (focus && token !== null) target?.focus({ preventScroll: false });
      }
      function setLayer(layer, { aloud = true, expert = state.expert } = {}) {
        strip.dataset.layer = layer ?? "all";
        strip.dataset.expert = expert ?? "";
        strip.dataset.expert = state.expert ?? "";
        paint();
        sayPicked();
        mark();
        show();
        announce();
        if (aloud && state.token !== null) say(spoken(state.token));
      }
      function step(by) {
        const wanted = (state.layer === null ? 0 : state.row() + 1) + by;
        const position = Math.min(Math.max(wanted, 0), layers.length);
        setLayer(position === 0 ? null : layers[position - 1]);
      }
      return {
        strip, numbers, state, reverse, columns, redraw, select, setLayer, step, say, spoken,
        trace: strip.dataset.trace,
        isPinned: () => pinned,
        move: grid.move,
        hover(token) {
          if (token === hovered) return;
          hovered = token;
          show();
        },
        // A cell of the table picks out the tokens that went there; without an expert all are shown again.
        pick(layer, expert) {
          setLayer(layer, { expert, aloud: false });
          say(expert === null ? "All tokens are shown." : picked.firstChild.textContent);
        },
        setMode(mode) {
          strip.dataset.mode = mode;
          redraw();
          announce();
        },
        setColour(colour) {
          strip.dataset.colour = colour;
          if (colour === "expert" && state.layer === null && layers.length) setLayer(layers[layers.length >> 1], { aloud: false });
          redraw();
          announce();
        },
        // The address was changed by the back button.
        restore({ layer, expert, tok, mode, colour }) {
          Object.assign(strip.dataset, { layer: layer || "all", expert, token: tok, mode, colour });
          Object.assign(strip.dataset, { layer: state.layer ?? "all", expert: state.expert ?? "", token: state.token ?? "" });
          pinned = state.token !== null;
          announced = JSON.stringify(snapshot());
          redraw();
        },
      };
    }
  })();
}
