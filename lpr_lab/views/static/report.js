// A report in its own file: brings token strips to life, draws the charts, switches brightness, gets ready for paper.
(() => {
  "use strict";
  const root = document.documentElement;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  // ---- brightness ---------------------------------------------------------------------------------------------
  const button = document.getElementById("lpr-brightness");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
  const name = () => { button.textContent = isDark() ? "Light" : "Dark"; button.setAttribute("aria-label", `Switch to ${isDark() ? "light" : "dark"}`); };
  button.hidden = false;
  button.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; name(); });
  dark.addEventListener("change", name);
  name();

  // ---- one language at a time ---------------------------------------------------------------------------------
  for (const box of all(".lpr-tabs")) {
    const tabs = all("[role=tab]", box);
    const show = (chosen, focus) => tabs.forEach((tab) => {
      const on = tab === chosen;
      tab.setAttribute("aria-selected", String(on));
      tab.tabIndex = on ? 0 : -1;
      document.getElementById(tab.getAttribute("aria-controls")).classList.toggle("lpr-away", !on);
      if (on && focus) tab.focus();
    });
    show(tabs[0]);
    tabs.forEach((tab, place) => {
      tab.addEventListener("click", () => show(tab));
      tab.addEventListener("keydown", (event) => {
        const steps = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: tabs.length - 1 };
        if (!(event.key in steps)) return;
        event.preventDefault();
        show(tabs[(steps[event.key] + tabs.length) % tabs.length], true);
      });
    });
  }
  all(".lpr-strip").forEach(window.lprTokenStrip);

  // ---- charts: the library is unpacked once the text is on the screen --------------------------------------------
  const places = all("[data-figure]");
  async function library() {
    const packed = Uint8Array.from(atob(document.getElementById("lpr-library").textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
    return window.Plotly;
  }
  function scale(place) { // so that paper, and a narrower window before the next drawing, shrink it like a picture
    const { width, height } = place._fullLayout;
    place.style.setProperty("--ratio", `${width} / ${height}`);
    all(".main-svg", place).forEach((svg) => svg.setAttribute("viewBox", `0 0 ${width} ${height}`));
  }
  async function draw() {
    const { template, figures } = JSON.parse(document.getElementById("lpr-figures").textContent);
    const plotly = await library();
    const narrow = matchMedia("(max-width: 640px)").matches;
    for (const place of places) {
      const { data, layout } = figures[place.dataset.figure];
      const looks = { ...layout, template, autosize: true, paper_bgcolor: "transparent", plot_bgcolor: "transparent" };
      if (narrow) looks.font = { size: 11 };
      await plotly.newPlot(place, data, looks, { responsive: true, displayModeBar: false, showTips: false });
      place.style.minHeight = "";
      place.on("plotly_afterplot", () => scale(place));
      scale(place);
      await new Promise((done) => setTimeout(done));
    }
  }
  function failed(error) {
    for (const place of places) {
      if (place.querySelector("svg")) continue;
      place.style.minHeight = "";
      place.removeAttribute("role");
      place.textContent = "This browser did not draw the chart; the table below holds its numbers.";
      place.parentElement.querySelector("details").open = true;
    }
    console.warn(error);
  }
  const idle = window.requestIdleCallback || ((work) => setTimeout(work, 50));
  if (places.length) idle(() => draw().catch(failed).then(() => { root.dataset.lprReady = "1"; }), { timeout: 500 });
  else root.dataset.lprReady = "1";

  // ---- paper ------------------------------------------------------------------------------------------------------
  const opened = [];
  addEventListener("beforeprint", () => all("details.lpr-fold:not([open])").forEach((fold) => { fold.open = true; opened.push(fold); }));
  addEventListener("afterprint", () => opened.splice(0).forEach((fold) => { fold.open = false; }));
})();
