// What every page needs: the address follows the page, brightness is remembered, token strips come to life.
(function () {
  "use strict";
  const keys = ["layer", "tok", "mode", "view"];

  function setQuery(query) {
    const target = location.pathname + (query ? "?" + query : "");
    if (target !== location.pathname + location.search) history.replaceState(history.state, "", target);
    carryOver();
  }
  // The pages' links take run and language along; the rest belongs to one page.
  function carryOver() {
    const here = new URLSearchParams(location.search);
    const kept = new URLSearchParams([...here].filter(([key]) => key === "run" || key === "lang"));
    for (const link of document.querySelectorAll("a[data-page]"))
      link.href = link.dataset.page + (kept.size ? "?" + kept : "");
  }
  document.addEventListener("lpr:change", (event) => {
    const query = new URLSearchParams(location.search);
    const { layer, tok, mode, colour } = event.detail;
    const values = { layer, tok, mode: mode === "reading" ? "" : mode, view: colour === "original" ? "" : colour };
    for (const key of keys) values[key] === "" ? query.delete(key) : query.set(key, values[key]);
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
    const copy = event.target.closest?.(".lpr-command");
    if (copy) {
      navigator.clipboard?.writeText(copy.textContent).then(() => {
        copy.classList.add("lpr-copied");
        setTimeout(() => copy.classList.remove("lpr-copied"), 1200);
      });
    }
  });

  // ---- our HTML inside gradio
  function refresh(element) {
    for (const strip of element.querySelectorAll(".lpr-strip")) window.lprTokenStrip(strip);
    const marked = element.querySelector("[data-query]");
    if (marked) setQuery(marked.dataset.query);
    const question = element.querySelector("h1");
    const page = document.querySelector("a[data-page][aria-current]");
    if (question && page) document.title = page.textContent + " · lpr_lab";
    carryOver();
  }
  function attach(element, watch, trigger) {
    refresh(element);
    watch("value", () => refresh(element));
    // A link that only changes what this page shows: change the address, then let Python redraw.
    element.addEventListener("click", (event) => {
      const link = event.target.closest("[data-pick]");
      if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
      event.preventDefault();
      setQuery(link.dataset.pick);
      trigger("click");
    });
  }
  window.lpr = { attach };
})();
