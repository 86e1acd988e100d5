// "Take this view with you": the cell and the names of files are asked for when that part is opened, and again whenever
// the view changes while it is open; figures become files in the browser, as they are drawn.
(function () {
  "use strict";
  const NS = "http://www.w3.org/2000/svg";

  // A figure of plotly lies in several drawings one above the other; a file has all of them in one.
  function svgOf(plot) {
    const box = plot.getBoundingClientRect(), svg = document.createElementNS(NS, "svg");
    const size = { width: Math.round(box.width), height: Math.round(box.height) };
    for (const [name, value] of Object.entries(size)) svg.setAttribute(name, value);
    svg.setAttribute("viewBox", `0 0 ${size.width} ${size.height}`);
    const ground = document.createElementNS(NS, "rect");
    for (const name of ["width", "height"]) ground.setAttribute(name, "100%");
    ground.setAttribute("fill", getComputedStyle(plot).getPropertyValue("--lpr-surface").trim() || "white");
    svg.append(ground);
    for (const layer of plot.querySelectorAll(".main-svg"))
      for (const part of layer.children) if (!part.matches(".hoverlayer")) svg.append(part.cloneNode(true));
    return new XMLSerializer().serializeToString(svg);
  }
  function save(text, name, kind) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: kind }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }
  const plots = () => [...document.querySelectorAll(".js-plotly-plot")].filter((plot) => plot.querySelector(".main-svg") && plot.offsetParent);

  function link(base, file) {
    const made = document.createElement("a");
    made.className = "lpr-button";
    made.href = `${base}/${file}${location.search}`;
    made.download = "";
    made.textContent = file;
    return made;
  }
  function button(page, number) {
    const made = document.createElement("button");
    made.type = "button";
    made.className = "lpr-button";
    made.textContent = `figure ${number + 1}.svg`;
    made.addEventListener("click", () => {
      const plot = plots()[number];
      if (plot) save(svgOf(plot), `${page}-figure-${number + 1}.svg`, "image/svg+xml");
    });
    return made;
  }

  async function fill(part) {
    const said = part.querySelector("[data-said]"), found = part.querySelector("[data-found]");
    const query = location.search, base = part.dataset.view;
    part.dataset.asked = query;
    let text, answer;
    try {
      answer = await fetch(`${base}/index.json${query}`);
      text = await answer.text();
    } catch {
      text = "The dashboard does not answer.";
    }
    if (part.dataset.asked !== query) return; // the view is another one by now, and was asked for again
    const isThere = Boolean(answer?.ok);
    found.hidden = !isThere;
    said.hidden = isThere;
    said.textContent = isThere ? "" : text;
    if (!isThere) return;
    const { cell, files } = JSON.parse(text);
    part.querySelector("code").textContent = cell;
    part.querySelector("[data-files]").replaceChildren(link(base, "view.py"), ...files.map((file) => link(base, file)));
    listFigures(part);
  }

  // Figures are drawn after the words of a page, so they are looked for again whenever something was added to it.
  function listFigures(part) {
    const list = part.querySelector("[data-figures]"), page = part.dataset.view.split("/").pop();
    const count = plots().length;
    if (list.childElementCount !== count) list.replaceChildren(...Array.from({ length: count }, (_, number) => button(page, number)));
  }
  const opened = () => document.querySelectorAll(".lpr-take[open]");
  let looking = 0;
  new MutationObserver(() => {
    clearTimeout(looking);
    looking = setTimeout(() => opened().forEach(listFigures), 300);
  }).observe(document.documentElement, { subtree: true, childList: true });

  document.addEventListener("toggle", (event) => event.target.matches?.(".lpr-take[open]") && fill(event.target), true);
  let waiting = 0;
  document.addEventListener("lpr:address", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => opened().forEach(fill), 100);
  });
})();
