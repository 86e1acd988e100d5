// What gradio's widgets lack for the keyboard and for long texts, and what keeps plots whole when the address changes.
(function () {
  "use strict";
  const LIMIT = /(?:^|\s)lpr-limit-(\d+)(?:\s|$)/;

  // ---- one Tab stop per group of radios, arrows within it: gradio gives every option a group of its own
  let groups = 0;
  function group(fieldset) {
    const radios = [...fieldset.querySelectorAll("input[type=radio]")];
    if (radios.length < 2 || radios.every((radio) => radio.name === radios[0].name)) return;
    const chosen = radios.find((radio) => radio.checked);
    const name = (fieldset.dataset.lprGroup ??= "lpr-group-" + ++groups);
    for (const radio of radios) radio.name = name;
    if (chosen) chosen.checked = true; // renaming lets only one stay checked, and not always this one
  }

  // ---- a box that is searched: what it shows is selected, so that typing begins a new search
  const isSearched = (box) => box?.matches?.("input[role=combobox]:not([readonly])");
  document.addEventListener("focusin", (event) => {
    if (isSearched(event.target)) setTimeout(() => event.target.select());
  });
  document.addEventListener("click", (event) => {
    const box = event.target;
    if (isSearched(box) && box.selectionStart === box.selectionEnd && box.dataset.lprTyped !== "1") box.select();
  });
  document.addEventListener("input", (event) => isSearched(event.target) && (event.target.dataset.lprTyped = "1"));
  document.addEventListener("focusout", (event) => isSearched(event.target) && delete event.target.dataset.lprTyped);

  // ---- how long a text may be: counted while it is typed, and never cut
  function count(box) {
    const limit = Number(LIMIT.exec(box.closest("[class*=lpr-limit-]")?.className ?? "")?.[1]);
    if (!limit) return;
    const label = box.closest("label") ?? box.parentElement;
    let line = label.parentElement.querySelector(":scope > .lpr-counter");
    if (!line) {
      line = document.createElement("p");
      line.className = "lpr-counter";
      label.after(line);
    }
    const written = [...box.value].length, digits = (number) => number.toLocaleString("en");
    const over = written - limit;
    const said = `${digits(written)} of ${digits(limit)} characters` + (over > 0 ? `: ${digits(over)} too many. Nothing was cut; shorten it.` : "");
    if (line.textContent !== said) line.textContent = said; // no change without one: changes are watched
    const was = line.classList.toggle("lpr-over", over > 0);
    box.setAttribute("aria-invalid", String(over > 0));
    if (was && !line.dataset.said) say(line.textContent);
    line.dataset.said = was ? "1" : "";
  }
  document.addEventListener("input", (event) => event.target.matches?.("textarea") && count(event.target));
  // What a script writes into a box is neither an input nor a change of the document: the box itself must say it.
  const plain = Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, "value");
  function counted(box) {
    if (!Object.hasOwn(box, "value"))
      Object.defineProperty(box, "value", {
        configurable: true,
        get: () => plain.get.call(box),
        set: (text) => (plain.set.call(box, text), count(box)),
      });
    count(box);
  }

  // ---- commands are copied by a button, and it is said
  function say(text) {
    const line = document.getElementById("lpr-said");
    if (!line) return;
    line.textContent = "";
    setTimeout(() => (line.textContent = text), 50);
  }
  async function copied(text) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      const box = document.createElement("textarea"); // where there is no clipboard: plain HTTP from another machine
      box.value = text;
      document.body.append(box);
      box.select();
      const done = document.execCommand("copy");
      box.remove();
      return done;
    }
  }
  document.addEventListener("click", async (event) => {
    const button = event.target.closest?.("[data-copy]");
    if (!button) return;
    const code = button.parentElement.querySelector("code");
    const done = await copied(code.textContent);
    if (!done) getSelection().selectAllChildren(code);
    button.textContent = done ? "Copied" : "Press Ctrl+C";
    say(done ? `Copied: ${button.dataset.copy || code.textContent}` : "It could not be copied. The command is selected: press Ctrl+C.");
    button.focus();
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });

  // ---- plots name their gradients and clips by the whole address, because gradio's page has a <base>; when the address
  // changes these names lead nowhere, and the next painting (a change of theme) leaves them out
  function localise() {
    for (const plot of document.querySelectorAll(".js-plotly-plot")) {
      if (plot._context) plot._context._baseUrl = "";
      for (const name of ["style", "clip-path", "fill", "mask"])
        for (const part of plot.querySelectorAll(`[${name}*="url("]`)) {
          const now = part.getAttribute(name), local = now.replace(/url\((["']?)[^"')#]+#/g, "url($1#");
          if (local !== now) part.setAttribute(name, local);
        }
    }
  }
  for (const name of ["pushState", "replaceState"]) {
    const change = history[name].bind(history);
    history[name] = (...how) => (change(...how), localise());
  }
  addEventListener("popstate", localise);

  function tend(root) {
    for (const fieldset of root.querySelectorAll("fieldset")) group(fieldset);
    if (root.matches?.("[class*=lpr-limit-] textarea")) counted(root);
    for (const box of root.querySelectorAll("[class*=lpr-limit-] textarea")) counted(box);
    if (root.matches?.("fieldset") || root.closest?.("fieldset")) group(root.closest("fieldset"));
    // What gradio shows where a plot is not drawn yet has a name but no role that may have one.
    for (const empty of [root, ...root.querySelectorAll(".empty[aria-label]")])
      if (empty.matches?.("div.empty[aria-label]:not([role])")) empty.setAttribute("role", "img");
  }
  function begin() {
    const line = document.createElement("div");
    line.id = "lpr-said";
    line.className = "lpr-hidden";
    line.setAttribute("role", "status");
    document.body.append(line);
    tend(document.body);
    new MutationObserver((changes) => {
      for (const change of changes) {
        if (change.type === "attributes") tend(change.target); // gradio names radios anew when it draws them again
        for (const node of change.addedNodes) if (node.nodeType === 1) tend(node);
      }
    }).observe(document.body, { subtree: true, childList: true, attributes: true, attributeFilter: ["name"] });
  }
  // gradio puts the scripts of the head in by script: the page may be there already.
  document.readyState === "loading" ? document.addEventListener("DOMContentLoaded", begin) : begin();
})();
