// The numbers of a token strip, and how they look as colour. A row is a layer's place in `layers`; null is all of them.
window.lprTokenNumbers = function (strip) {
  "use strict";
  const data = JSON.parse(strip.dataset.trace);
  const { layers, experts, k, bits, tokens, surprise, change } = data;
  const count = tokens.length;
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const words = (text) => {
    const raw = bytes(text);
    return new Uint16Array(raw.length >> 1).map((_, i) => raw[2 * i] | (raw[2 * i + 1] << 8));
  };
  const ids = bytes(data.ids);
  const shares = words(data.weights);
  const most = Math.max(...experts, 1);
  const allProbs = data.probs && words(data.probs);
  const shifts = change && words(change.shift);
  const moves = change && bytes(change.moved);

  function weights(row, token) {
    const out = new Array(experts[row]).fill(0);
    for (let slot = 0; slot < k; slot++) {
      const at = (row * count + token) * k + slot;
      if (ids[at] < out.length) out[ids[at]] += shares[at] / 65535;
    }
    return out;
  }
  // Router probabilities; where they were not kept or say nothing more, the weights.
  function probs(row, token) {
    if (!allProbs) return weights(row, token);
    const start = (row * count + token) * most;
    return Array.from(allProbs.slice(start, start + experts[row]), (value) => value / 65535);
  }
  function meanOf(read, token) {
    const out = new Array(most).fill(0);
    layers.forEach((_, row) => read(row, token).forEach((value, e) => (out[e] += value / layers.length)));
    return out;
  }
  const at = (read) => (row, token) => (row === null ? meanOf(read, token) : read(row, token));
  const each = (row) => (row === null ? layers.map((_, r) => r) : [row]);
  // How the weight of the original expert shifted, and how many choices moved; 0 where there is no comparison.
  function shift(row, token) {
    const rows = each(row).map((r) => change.rows[r]).filter((r) => r >= 0);
    const values = rows.map((r) => shifts[r * count + token] / 32767 - 1);
    return { mean: values.reduce((sum, v) => sum + v, 0) / Math.max(values.length, 1), moved: rows.filter((r) => moves[r * count + token]).length };
  }
  const two = bits || [[], []];
  return {
    ...data, count, most, shift,
    hasProbs: Boolean(allProbs),
    weights: at(weights),
    probs: at(probs),
    first: (row, token) => ids[(row * count + token) * k],
    gain: (token) => (two[0][token] ?? null) === null || (two[1][token] ?? null) === null ? null : two[0][token] - two[1][token],
    surprise: (token) => (surprise ? surprise[token] : null),
    isText: (token) => tokens[token][2] !== "",
  };
};

// Paints the tokens of a strip and writes its legend.
window.lprTokenLooks = function (strip, numbers, state, reverse) {
  "use strict";
  const { layers, experts, names } = numbers;
  const legend = strip.querySelector(".lpr-legend");
  const plain = { tone: "line-strong", dashed: true, alpha: 0, dim: false };
  // Every token gets a tone (colour variable), whether its line is dashed, and the strength of its tint.
  function colour(token) {
    const row = state.row();
    const way = strip.dataset.colour;
    if (way === "gain") {
      const won = numbers.gain(token);
      if (won === null) return plain;
      return { tone: won >= 0 ? "good" : "bad", dashed: won < 0, alpha: 0.03 + 0.2 * Math.min(Math.abs(won) / 6, 1) };
    }
    if (way === "surprise") {
      const bits = numbers.surprise(token);
      if (bits === null) return plain;
      return { tone: "warn", dashed: bits >= 8, alpha: 0.03 + 0.22 * Math.min(bits / 16, 1) };
    }
    if (way === "change") {
      const { mean, moved } = numbers.shift(row, token);
      if (!moved) return { ...plain, dim: true };
      return { tone: mean >= 0 ? "original" : "new", dashed: mean < 0, alpha: 0.05 + 0.2 * Math.min(Math.abs(mean), 1) };
    }
    const list = numbers.weights(row, token);
    if (way === "expert") {
      const expert = list.indexOf(Math.max(...list));
      return { tone: "expert-" + Math.min(expert, 6), dashed: expert > 0, alpha: 0.03 + 0.14 * list[expert] };
    }
    return {
      tone: list[0] >= 0.5 ? "original" : "new",
      dashed: list[0] < 0.5,
      alpha: 0.03 + 0.14 * Math.abs(2 * list[0] - 1),
    };
  }
  const look = (token) => (state.isPicked(token) ? colour(token) : { ...plain, dim: true });
  function paintOne(element, { tone, dashed, alpha, dim }) {
    element.style.setProperty("--tone", dim ? "transparent" : `var(--lpr-${tone})`);
    element.style.setProperty("--a", alpha.toFixed(3));
    element.classList.toggle("lpr-n", dashed);
    element.classList.toggle("lpr-o", !dashed);
    element.classList.toggle("lpr-dim", Boolean(dim));
  }
  const solid = (tone) => `linear-gradient(${tone},${tone})`;
  const dashes = (tone) => `repeating-linear-gradient(90deg,${tone} 0 3px,transparent 3px 5px)`;
  function paintShared(element, looks) {
    const n = looks.length;
    const place = (i) => (100 * (reverse ? n - 1 - i : i)) / Math.max(n - 1, 1);
    const strongest = looks.reduce((a, b) => (b.alpha > a.alpha ? b : a));
    element.style.setProperty("--tone", `var(--lpr-${strongest.tone})`);
    element.style.setProperty("--a", (looks.reduce((sum, l) => sum + l.alpha, 0) / n).toFixed(3));
    element.classList.toggle("lpr-dim", looks.every((l) => l.dim));
    const lines = looks.map((l) => (l.dashed ? dashes : solid)(l.dim ? "transparent" : `var(--lpr-${l.tone})`));
    element.style.backgroundImage = [...lines, "var(--lpr-wash)"].join(",");
    element.style.backgroundSize = [...lines.map(() => `calc(${100 / n}% - 1px) 3px`), "calc(100% - 1px) 100%"].join(",");
    element.style.backgroundPosition = [...looks.map((_, i) => place(i) + "% 100%"), (reverse ? "100%" : "0") + " 0"].join(",");
  }
  function paint() {
    const looks = numbers.tokens.map((_, token) => look(token));
    for (const element of strip.querySelectorAll("[data-t]")) {
      const own = element.dataset.t.split(" ").map((i) => looks[i]);
      if (element.classList.contains("lpr-shared")) paintShared(element, own);
      else paintOne(element, own[0]);
    }
    writeLegend();
  }
  function writeLegend() {
    if (!layers.length) return legend.replaceChildren();
    const from = numbers.from || "before";
    const texts = {
      original: [
        ["original", false, "mostly the original expert, frozen"],
        ["new", true, "mostly new experts"],
      ],
      gain: [
        ["good", false, `more expected ${names[1]} than ${names[0]}`],
        ["bad", true, `less expected ${names[1]} than ${names[0]}`],
      ],
      surprise: [
        ["warn", false, "expected: under 8 bits"],
        ["warn", true, "surprising: 8 bits or more"],
      ],
      change: [
        ["original", false, `moved towards the original expert since ${from}`],
        ["new", true, "moved towards new experts"],
      ],
      expert: [...Array(Math.min(Math.max(...experts), 7)).keys()].map((e) => [
        "expert-" + e, e > 0, e === 0 ? "expert 0, the original" : "expert " + e + (e === 6 ? " and on" : ""),
      ]),
    }[strip.dataset.colour];
    const noLayer = ["gain", "surprise"].includes(strip.dataset.colour);
    const where = noLayer ? "" : `, ${state.layer === null ? "mean over all layers" : state.layerName()}`;
    const note = strip.dataset.colour === "change" ? "Without colour: stayed" : "The deeper the tint, the clearer the choice";
    legend.replaceChildren(
      ...texts.map(([tone, dashed, text]) => {
        const item = document.createElement("span");
        const swatch = document.createElement("i");
        paintOne(swatch, { tone, dashed, alpha: 0.17 });
        item.append(swatch, text);
        return item;
      }),
      Object.assign(document.createElement("span"), { textContent: (noLayer ? "The deeper the tint, the larger the number" : note) + where + "." })
    );
  }
  return { paint };
};
