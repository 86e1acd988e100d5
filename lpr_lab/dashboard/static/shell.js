// What every page needs: the address follows the page, brightness is remembered, token strips come to life.
(function () {
  "use strict";
  // What one looks at on every page; the rest belongs to the page, which is found again as it was left.
  const shared = ["run", "run2", "stage", "stage2", "base", "lang", "langs", "layer", "expert"];
  // What one goes back from; the others change too often to be steps of their own.
  const steps = ["run", "run2", "runs", "where", "sort", "text", "lang", "langs", "data", "stage", "stage2", "rule"];
  const inPlace = { layer: "layer", tok: "tok", mode: "mode", colour: "view", expert: "expert", stage: "stage" };
  const usual = { mode: "reading", colour: "original" };

  function setQuery(query, { drawn = false, followed = false } = {}) {
    const target = location.pathname + (query ? "?" + query : "");
    if (target !== location.pathname + location.search) {
      const before = new URLSearchParams(location.search);
      const after = new URLSearchParams(query);
      // The first drawing only completes the address that was asked for.
      const isStep = followed || shown !== null && [...steps, "expert"].some((key) => before.get(key) !== after.get(key));
      history[isStep ? "pushState" : "replaceState"](history.state, "", target);
      document.dispatchEvent(new Event("lpr:address"));
    }
    if (drawn) shown = subject();
    carryOver();
  }
  // What Python drew: all of the address but what a token strip chooses by itself.
  function subject() {
    const query = new URLSearchParams(location.search);
    for (const key of [...Object.values(inPlace), "cause", "guess"]) if (key !== "stage") query.delete(key);
    query.sort();
    return query.toString();
  }
  let shown = null;
  // Back and forward: a strip's own choices are restored in place, so that nothing else on the page is lost.
  addEventListener("popstate", () => {
    const strips = document.querySelectorAll(".lpr-strip[data-linked=yes]");
    if (!strips.length || subject() !== shown) return location.reload();
    const query = new URLSearchParams(location.search);
    const detail = Object.fromEntries(Object.entries(inPlace).map(([name, key]) => [name, query.get(key) ?? usual[name] ?? ""]));
    for (const strip of strips) window.lprTokenStrip.of(strip)?.restore(detail);
    carryOver();
  });

  function kept(page) {
    try {
      return new URLSearchParams(sessionStorage.getItem("lpr.page." + page) ?? "");
    } catch {
      return new URLSearchParams();
    }
  }
  function carryOver() {
    const here = new URLSearchParams(location.search);
    try {
      sessionStorage.setItem("lpr.page." + location.pathname, here.toString());
    } catch {}
    for (const link of document.querySelectorAll("a[data-page]")) {
      const last = kept(link.dataset.page);
      const query = last.get("run") === here.get("run") ? last : new URLSearchParams();
      for (const key of shared) here.has(key) ? query.set(key, here.get(key)) : query.delete(key);
      link.href = link.dataset.page + (query.size ? "?" + query : "");
    }
  }
  document.addEventListener("lpr:change", (event) => {
    const query = new URLSearchParams(location.search);
    for (const [name, key] of Object.entries(inPlace)) {
      if (!(name in event.detail)) continue;
      const value = event.detail[name] ?? "";
      value === "" || value === usual[name] ? query.delete(key) : query.set(key, value);
    }
    setQuery(query.toString());
  });

  // ---- brightness: the system's, unless the reader chose
  const system = matchMedia("(prefers-color-scheme: dark)");
  const chosen = () => {
    try {
      return localStorage.getItem("lpr.theme");
    } catch {
      return null;
    }
  };
  const isDark = () => (chosen() ? chosen() === "dark" : system.matches);
  function shine() {
    if (!document.body) return;
    const dark = isDark();
    if (document.body.classList.contains("dark") !== dark) document.body.classList.toggle("dark", dark);
    document.documentElement.style.colorScheme = dark ? "dark" : "light";
  }
  new MutationObserver(shine).observe(document.documentElement, {
    subtree: true, attributes: true, attributeFilter: ["class"], childList: false,
  });
  document.addEventListener("DOMContentLoaded", shine);
  system.addEventListener("change", shine);
  document.addEventListener("click", (event) => {
    if (event.target.closest?.("[data-theme-toggle]")) {
      try {
        localStorage.setItem("lpr.theme", isDark() ? "light" : "dark");
      } catch {}
      shine();
    }
    if (event.target.closest?.("[data-skip]")) {
      event.preventDefault();
      document.getElementById("lpr-main")?.focus();
    }
  });

  // ---- a list that can be searched
  document.addEventListener("input", (event) => {
    const rows = event.target.dataset?.search;
    if (!rows) return;
    const wanted = event.target.value.trim().toLowerCase();
    for (const row of document.querySelectorAll(rows)) row.hidden = !row.textContent.toLowerCase().includes(wanted);
  });

  // ---- our HTML inside gradio
  // Its nodes stay while what they hold is exchanged, so listeners are added once, to the component's own element or to
  // the document, and nothing that was read from a node is kept.
  // Where the reader is to be taken once it is drawn: what the address names behind its #, or a link that was followed.
  let goal = location.hash.slice(1);
  function goThere(element) {
    const place = goal && element.querySelector("#" + CSS.escape(goal));
    if (!place) return;
    goal = "";
    place.scrollIntoView({ block: "start" });
    place.focus({ preventScroll: true });
  }
  function refresh(element) {
    for (const plan of element.querySelectorAll(".lpr-plan")) window.lprPlan(plan);
    for (const strip of element.querySelectorAll(".lpr-strip")) window.lprTokenStrip(strip);
    for (const frame of element.querySelectorAll(".lpr-sitting")) window.lprSitting(frame);
    for (const map of element.querySelectorAll(".lpr-causal")) window.lprCausal(map);
    for (const grid of element.querySelectorAll(".lpr-guesses")) window.lprGuesses(grid);
    const marked = element.querySelector("[data-query]");
    if (marked) setQuery(window.lprPicks.answered(marked.dataset.query), { drawn: true });
    window.lprPicks.show(element);
    const question = element.querySelector("h1");
    const page = document.querySelector("a[data-page][aria-current]");
    if (question && page) document.title = page.textContent + " · lpr_lab";
    carryOver();
    goThere(element);
  }
  function attach(element, watch, trigger) {
    refresh(element);
    watch("value", () => refresh(element));
    element.addEventListener("lpr:plan", (event) => {
      const query = new URLSearchParams(location.search);
      query.set("experts", event.detail);
      query.set("rule", "own");
      setQuery(query.toString().replaceAll("%2C", ","));
      trigger("click");
    });
    // Something was chosen that Python shall answer, or that only the address has to say.
    element.addEventListener("lpr:address", (event) => setQuery(event.detail));
    element.addEventListener("lpr:ask", (event) => {
      setQuery(event.detail);
      trigger("click");
    });
    // Something that only changes what this page shows: change the address, then let Python redraw.
    window.lprPicks.listen(element, (query, there = "") => {
      const isHere = "?" + query === location.search;
      goal = there;
      setQuery(query, { followed: Boolean(goal) });
      if (isHere) goThere(document);
      trigger("click");
    });
  }
  window.lpr = { attach, setQuery };
})();
