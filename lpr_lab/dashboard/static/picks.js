// What a reader picks within a page: links (data-pick), boxes (data-tick), lists (data-choose) and bounds (data-bounds).
//
// On the page of runs a pick says what it changes, and the rest is taken from the address as it is by then: what was
// drawn may be older than the last picks. For the same reason an answer that was drawn before a pick does not take it
// back: what was wished stays in the address until an answer agrees with it.
(function () {
  "use strict";
  const keys = ["run", "runs", "kind", "state", "tag", "where", "sort", "by"];
  const isList = () => location.pathname === "/";
  const wished = new Map();
  const address = () => new URLSearchParams(location.search);
  const drawn = () => new URLSearchParams(document.querySelector("[data-lpr-page=ready]")?.dataset.query ?? "");
  const names = (query) => (query.get("runs") ?? "").split(",").filter(Boolean);
  const written = (query) => query.toString().replaceAll("%2C", ",");

  function put(query, key, value) {
    value ? query.set(key, value) : query.delete(key);
    if (keys.includes(key)) wished.set(key, value ?? "");
  }
  // The address that a link leads to: what it changes of what was drawn, done to what is asked for by now.
  function followed(link) {
    if (!isList()) return link.dataset.pick;
    const before = drawn(), after = new URLSearchParams(link.dataset.pick), query = address();
    for (const key of new Set([...before.keys(), ...after.keys()])) {
      if (key === "runs" || (before.get(key) ?? "") === (after.get(key) ?? "")) continue;
      put(query, key, after.get(key));
    }
    const gone = names(before).filter((name) => !names(after).includes(name));
    const added = names(after).filter((name) => !names(before).includes(name));
    if (gone.length || added.length)
      put(query, "runs", [...new Set([...names(query).filter((name) => !gone.includes(name)), ...added])].join(","));
    return written(query);
  }
  function ticked(box) {
    const query = address(), now = names(query), { tick, most } = box.dataset;
    if (!now.includes(tick) && now.length >= Number(most)) return null;
    put(query, "runs", (now.includes(tick) ? now.filter((name) => name !== tick) : [...now, tick]).join(","));
    return written(query);
  }
  function chosen(list) {
    const query = address(), key = list.dataset.choose;
    put(query, key, list.value);
    return written(query);
  }
  function bounded(form) {
    const query = address(), name = form.dataset.bounds;
    const bounds = [[">=", form.elements.from.value], ["<=", form.elements.to.value]];
    const parts = [form.dataset.rest, ...bounds.map(([sign, value]) => value && name + sign + value)];
    put(query, "where", parts.filter(Boolean).join(";"));
    return written(query);
  }

  function answered(text) {
    if (!isList() || !wished.size) return text;
    const query = new URLSearchParams(text);
    for (const [key, value] of wished) {
      if ((query.get(key) ?? "") === value) wished.delete(key);
      else value ? query.set(key, value) : query.delete(key);
    }
    return written(query);
  }
  // Boxes and lists stand as the address says, whatever was drawn before the last pick.
  function show(root) {
    const now = names(address());
    for (const box of root.querySelectorAll("[data-tick]")) {
      const inside = now.includes(box.dataset.tick);
      box.setAttribute("aria-checked", String(inside));
      box.setAttribute("aria-disabled", String(!inside && now.length >= Number(box.dataset.most)));
    }
    for (const list of root.querySelectorAll("[data-choose]")) {
      list.value = wished.get(list.dataset.choose) ?? list.dataset.chosen;
      if (list.selectedIndex < 0) list.value = ""; // the address names what no run has
    }
  }

  function listen(element, ask) {
    const pick = (query, goal) => {
      if (query === null) return;
      ask(query, goal);
      show(element);
    };
    element.addEventListener("click", (event) => {
      const link = event.target.closest("[data-pick], [data-tick]");
      if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
      event.preventDefault();
      "tick" in link.dataset ? pick(ticked(link)) : pick(followed(link), link.dataset.goto);
    });
    element.addEventListener("keydown", (event) => {
      if (event.key !== " " || !event.target.matches?.("[role=checkbox]")) return;
      event.preventDefault();
      event.target.click();
    });
    element.addEventListener("change", (event) => event.target.matches?.("[data-choose]") && pick(chosen(event.target)));
    element.addEventListener("submit", (event) => {
      if (!event.target.matches?.("[data-bounds]")) return;
      event.preventDefault();
      pick(bounded(event.target));
    });
  }
  window.lprPicks = { answered, show, listen };
})();
